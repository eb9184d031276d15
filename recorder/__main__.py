"""`python -m recorder` is the same as `ess-recorder`."""

from recorder.cli import main

if __name__ == "__main__":
    main(prog_name="ess-recorder")

"""What runs on the controller: the shell script that streams strace text to a recorder."""

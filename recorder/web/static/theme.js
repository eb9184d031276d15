// The theme: what the system prefers, unless somebody chose. Runs before the page is painted.
// Gives <html data-theme> and the event "themechange"; never asks the network.
(() => {
  "use strict";
  const order = ["auto", "light", "dark"];
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = "auto";

  function recall() {
    try {
      const kept = window.localStorage.getItem("theme");
      return order.includes(kept) ? kept : "auto";
    } catch {
      return "auto"; // a browser may forbid storage
    }
  }

  function show() {
    const dark = chosen === "dark" || (chosen === "auto" && prefersDark.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${chosen}`;
    document.dispatchEvent(new Event("themechange"));
  }

  function next() {
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    try {
      window.localStorage.setItem("theme", chosen);
    } catch {
      // it holds until the page is closed
    }
    show();
  }

  chosen = recall();
  show();
  prefersDark.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", next);
    show();
  });
})();

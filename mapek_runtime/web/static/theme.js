// Light, dark, or what the system says. A classic script in the head, so that the first paint has the right colours.
(() => {
  const key = "mapek.theme";
  const choices = ["auto", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // A browser may forbid storage: the choice then lasts as long as the page.
    }
  };
  const apply = (choice) => {
    const root = document.documentElement;
    if (choice === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", choice);
  };
  let current = choices.includes(stored()) ? stored() : "auto";
  apply(current);
  window.mapekTheme = {
    get: () => current,
    next() {
      current = choices[(choices.indexOf(current) + 1) % choices.length];
      apply(current);
      try {
        localStorage.setItem(key, current);
      } catch {
        // As above.
      }
      window.dispatchEvent(new Event("mapek-theme"));
      return current;
    },
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("mapek-theme")));
})();

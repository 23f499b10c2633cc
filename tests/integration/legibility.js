// What the tests of the page ask in the browser: `[count, poor, unnamed, wider]`. `poor` are texts whose contrast is below that
// of WCAG 2.2 AA (1.4.3), `unnamed` controls without a name, `wider` by how many pixels the page is wider than its window.
() => {
  const contrast = () => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((c, n) => c * a + below[n] * (1 - a));
    const ground = (element) => {
      const layers = [];
      for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
      return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const light = (colour) => {
      const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const poor = new Set();
    let count = 0;
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      if (element.closest(".hidden, noscript, script, style, option, :disabled")) continue;
      const style = getComputedStyle(element);
      const back = ground(element);
      const front = over(rgba(element.closest("svg") ? style.fill : style.color), back);
      const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
      const size = parseFloat(style.fontSize);
      const needed = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
      count += 1;
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < needed) poor.add(`${element.className || element.tagName}: ${walker.currentNode.data.trim()} ${ratio.toFixed(2)}`);
    }
    return [count, [...poor]];
  };

  const unnamed = () => [...document.querySelectorAll("a[href], button, input, select, textarea, svg[role], [role=img]")]
    .filter((one) => one.checkVisibility())
    .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim() || one.title))
    .map((one) => one.outerHTML.slice(0, 120));

  const [count, poor] = contrast();
  const root = document.documentElement;
  return [count, poor, unnamed(), root.scrollWidth - root.clientWidth];
}

const tip = document.getElementById("tip");
function show(cell, x, y) {
  const [head, ...lines] = cell.dataset.tip.split("|");
  tip.replaceChildren();
  const title = document.createElement("b");
  title.textContent = head;
  tip.append(title, ...lines.flatMap((line) => [line, document.createElement("br")]));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18) + "px";
}
document.querySelectorAll("td[data-tip]").forEach((cell) => {
  cell.addEventListener("mousemove", (event) => show(cell, event.clientX, event.clientY));
  cell.addEventListener("focus", () => {
    const box = cell.getBoundingClientRect();
    show(cell, box.left, box.bottom - 14);
  });
  for (const leave of ["mouseleave", "blur"]) cell.addEventListener(leave, () => { tip.hidden = true; });
});

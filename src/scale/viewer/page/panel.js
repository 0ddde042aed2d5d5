// What stands beside the slide: slides, classes with their counts, sliders; and the card of a picked detection.

import { area, count, make, of, roundDown, size } from "./words.js";
import { outlineArea } from "./overlay.js";

const MOST_BAR_PX = 150;

export function showSlides({ slides, problems }, chosen, onChoose) {
  of("slides-part").hidden = slides.length < 2 && !problems.length;
  of("problems").hidden = !problems.length;
  of("problems").textContent = problems.join("; ");
  of("slides").replaceChildren(...slides.map(slide => {
    const row = make("li");
    const button = make("button");
    button.type = "button";
    button.setAttribute("aria-current", String(slide.name === chosen));
    const picture = make("img");
    picture.loading = "lazy";
    picture.alt = "";
    picture.src = `slides/${encodeURIComponent(slide.name)}/thumbnail.jpg`;
    picture.addEventListener("error", () => picture.replaceWith(make("span", "no file", "none")));
    const words = make("span");
    words.append(make("b", slide.name), make("small", slide.count === null ? "" : `${count(slide.count)} detections`));
    words.firstChild.title = slide.name;
    button.append(picture, words);
    button.addEventListener("click", () => onChoose(slide.name));
    row.append(button);
    return row;
  }));
}

// One row for each class; what `showCounts` fills is left empty.
export function showClasses(slide, isOn, onToggle) {
  of("classes").replaceChildren(...slide.classes.map((one, number) => {
    const row = make("tr");
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.checked = isOn(number);
    box.addEventListener("change", () => onToggle(number, box.checked));
    const swatch = make("i");
    swatch.style.background = one.color;
    label.append(box, swatch, make("span", one.name));
    const first = make("td");
    first.append(label);
    row.append(first, make("td", "–"), make("td", "–"));
    return row;
  }));
}

export function showCounts(slide, filter, inView) {
  const step = Math.round(100 * filter.least);
  const sums = [0, 0];
  [...of("classes").rows].forEach((row, number) => {
    const on = filter.classes.includes(number);
    const counts = [inView ? inView[number] : null, slide.classes[number].count_at[step]];
    row.classList.toggle("off", !on);
    row.querySelector("input").checked = on;
    counts.forEach((value, at) => {
      row.cells[at + 1].textContent = value === null || (at === 0 && !on) ? "–" : count(value);
      if (on) sums[at] += value || 0;
    });
  });
  const sum = make("tr");
  sum.append(make("td", "shown"), make("td", inView ? count(sums[0]) : "–"), make("td", count(sums[1])));
  of("sums").replaceChildren(sum);
}

export function showFilter(filter, solid) {
  of("least").value = String(filter.least);
  of("least-said").textContent = filter.least.toFixed(2);
  of("solid").value = String(solid);
  of("solid-said").textContent = `${Math.round(100 * solid)} %`;
}

export function showScale(slide, scale) {
  const mpp = slide.mpp || 1;
  const value = roundDown(MOST_BAR_PX * mpp / scale);
  const [bar] = of("scalebar").getElementsByTagName("i");
  bar.style.width = `${(value / mpp * scale).toFixed(1)}px`;
  const unit = slide.mpp ? "µm" : "px";
  of("scalebar").firstElementChild.textContent = slide.mpp && value >= 1000 ? `${value / 1000} mm` : `${value} ${unit}`;
  of("scalebar").hidden = false;
}

// The card beside a picked detection; it stays inside the map.
export function showPicked(slide, data, at, point, room) {
  const { name, color } = slide.classes[data.classes[at]];
  const [x0, y0, x1, y1] = data.boxes.subarray(4 * at, 4 * at + 4);
  const card = of("picked");
  card.querySelector("i").style.background = color;
  of("picked-class").textContent = name;
  const facts = [
    ["confidence", data.scores[at].toFixed(3)],
    ["size", size(x1 - x0, y1 - y0, slide.mpp)],
  ];
  const begin = data.offsets ? data.offsets[at] : 0, end = data.offsets ? data.offsets[at + 1] : 0;
  if (end - begin > 2) facts.push(["area", area(outlineArea(data.points, begin, end), slide.mpp)]);
  facts.push(["middle", `${Math.round((x0 + x1) / 2)}, ${Math.round((y0 + y1) / 2)} px`], ["number", count(data.ids[at])]);
  of("picked-facts").replaceChildren(...facts.flatMap(([word, value]) => [make("dt", word), make("dd", value)]));
  card.hidden = false;
  const left = point.x + 18 + card.offsetWidth < room.width ? point.x + 18 : point.x - 18 - card.offsetWidth;
  card.style.left = `${Math.max(8, left)}px`;
  card.style.top = `${Math.max(8, Math.min(room.height - card.offsetHeight - 8, point.y - 30))}px`;
}

export function showDrawn(text) {
  if (of("drawn").textContent !== text) of("drawn").textContent = text;
}

export function showNotice(text) {
  of("notice").hidden = !text;
  const [first, typed] = (text || "").split("; type: ");
  const said = first.charAt(0).toUpperCase() + first.slice(1);
  of("notice").replaceChildren(document.createTextNode(typed ? `${said}. Type:` : said));
  if (typed) {
    const [command, more] = typed.split(" (");
    of("notice").append(make("code", command));
    if (more) of("notice").append(document.createTextNode(`(${more}`));
  }
}

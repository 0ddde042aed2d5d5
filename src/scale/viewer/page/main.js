// The viewer: joins the slide, what was found on it, and what the person wants to see of it.

import { Found } from "./found.js";
import { SlideMap } from "./map.js";
import { Overlay, pick } from "./overlay.js";
import * as panel from "./panel.js";
import * as place from "./place.js";
import { ask, count, debounced, of } from "./words.js";

const filter = { least: 0, classes: [] };
let list = { slides: [], problems: [] };
let slide = null;
let inView = null;
let hash = "";
let moving = false;
let opening = 0;

const map = new SlideMap(of("map"), { onView: onMove, onClick });
const overlay = new Overlay(map);
const found = new Found(error => {
  if (error) panel.showNotice(`The detections could not be read: ${error.message}`);
  if (slide) draw();
});
const rested = debounced(120, () => { moving = false; onRest(); });

function draw() {
  overlay.draw(found, filter, { atRest: !moving });
  panel.showScale(slide, map.transform().scale);
  panel.showDrawn(said());
}

function said() {
  const last = found.vectors.value;
  const { single, cloudy } = found.split(filter.classes, map.transform().scale);
  if (single.length && last && last.found.total > last.found.n) return `the ${count(last.found.n)} surest of ${count(last.found.total)} around here; zoom in for all`;
  if (cloudy.length && !single.length) return "density; zoom in for single detections";
  return "";
}

function onMove() {
  if (!slide) return;
  moving = true;
  found.look(map.rectangle(), map.transform().scale, filter);
  draw();
  rested();
}

async function onRest() {
  if (!slide) return;
  draw();
  hash = place.write({ slide: slide.name, ...map.place(), conf: filter.least, classes: filter.classes.length === slide.classes.length ? null : filter.classes.map(number => slide.classes[number].name) });
  history.replaceState(null, "", hash);
  const asked = slide;
  try {
    const counts = await found.counts(map.rectangle(), filter);
    if (asked === slide) { inView = counts; panel.showCounts(slide, filter, inView); }
  } catch (error) {
    panel.showNotice(`The detections could not be counted: ${error.message}`);
  }
  document.body.dataset.rested = String(Number(document.body.dataset.rested || 0) + 1);
}

function onFilter() {
  inView = null;
  panel.showFilter(filter, overlay.solid);
  panel.showCounts(slide, filter, inView);
  if (overlay.picked && (overlay.picked.score < Math.fround(filter.least) || !filter.classes.includes(overlay.picked.class))) unpick();
  overlay.stale();
  onMove();
}

function onClick(at, point) {
  const { scale } = map.transform();
  const data = found.vectors.value;
  const { single } = found.split(filter.classes, scale);
  const best = data ? pick(data.found, { single, least: Math.fround(filter.least) }, at, 3 / scale) : -1;
  if (best < 0) { unpick(); return; }
  const { boxes, classes, scores } = data.found;
  overlay.picked = { box: boxes.slice(4 * best, 4 * best + 4), class: classes[best], score: scores[best] };
  panel.showPicked(slide, data.found, best, point, map.size());
  draw();
}

function unpick() {
  overlay.picked = null;
  of("picked").hidden = true;
  if (slide) draw();
}

async function open(name, wanted) {
  const mine = ++opening;
  unpick();
  of("title").textContent = name;
  document.title = `${name} – scale`;
  panel.showSlides(list, name, chosen => open(chosen, { ...place.read(""), slide: chosen, conf: filter.least }));
  try {
    const known = await (await ask(`slides/${encodeURIComponent(name)}`)).json();
    if (mine !== opening) return;
    slide = null;
    found.open(known);
    overlay.stale();
    filter.classes = known.classes.map((_, number) => number);
    if (wanted.classes) filter.classes = filter.classes.filter(number => wanted.classes.includes(known.classes[number].name));
    filter.least = Math.min(1, Math.max(0, Math.round(100 * (wanted.conf ?? 0)) / 100));
    await map.open(known);
    if (mine !== opening) return;
    slide = known;
    inView = null;
    const size = known.mpp ? ` · ${(known.width_px * known.mpp / 1000).toFixed(1)} × ${(known.height_px * known.mpp / 1000).toFixed(1)} mm · ${known.mpp.toPrecision(3)} µm/px` : " · size of a pixel unknown";
    of("about").textContent = `${count(known.width_px)} × ${count(known.height_px)} px${size}`;
    panel.showNotice(known.problem);
    panel.showClasses(known, number => filter.classes.includes(number), toggle);
    panel.showFilter(filter, overlay.solid);
    panel.showCounts(known, filter, inView);
    map.goTo(wanted);
    rested();
  } catch (error) {
    if (mine !== opening) return;
    panel.showNotice(error.message);
    of("about").textContent = "";
  }
}

function toggle(number, on) {
  filter.classes = slide.classes.map((_, at) => at).filter(at => at === number ? on : filter.classes.includes(at));
  onFilter();
}

function follow() {
  const wanted = place.read(location.hash);
  const names = list.slides.map(one => one.name);
  if (location.hash === hash && slide) return;
  open(names.includes(wanted.slide) ? wanted.slide : names[0], wanted);
}

async function copyLink() {
  const button = of("copy");
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The link is in the address bar";
  }
  setTimeout(() => { button.textContent = words; }, 1800);
}

function listen() {
  of("least").addEventListener("input", event => { filter.least = Number(event.target.value); if (slide) onFilter(); });
  of("solid").addEventListener("input", event => { overlay.solid = Number(event.target.value); panel.showFilter(filter, overlay.solid); if (slide) { overlay.stale(); draw(); } });
  of("all").addEventListener("click", () => { if (slide) { filter.classes = slide.classes.map((_, at) => at); onFilter(); } });
  of("none").addEventListener("click", () => { if (slide) { filter.classes = []; onFilter(); } });
  of("zoom-in").addEventListener("click", () => map.zoomBy(2));
  of("zoom-out").addEventListener("click", () => map.zoomBy(0.5));
  of("home").addEventListener("click", () => map.home());
  of("copy").addEventListener("click", copyLink);
  of("picked-close").addEventListener("click", unpick);
  addEventListener("keydown", event => { if (event.key === "Escape") unpick(); });
  addEventListener("hashchange", follow);
}

async function start() {
  listen();
  try {
    list = await (await ask("slides")).json();
    follow();
  } catch (error) {
    panel.showNotice(error.message);
  }
}

// For a console, and for programs that measure this page.
globalThis.scaleView = { map, overlay, found, filter };
start();

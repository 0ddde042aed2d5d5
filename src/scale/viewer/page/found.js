// Detections in view, as the server packs them (scale/viewer/encoding.py), and which of them to ask for.

import { ask } from "./words.js";

const MAGIC = 0x31444353;
const MOST = 40000;
// How much more than the view is asked for, on each side, so that a small move needs nothing new.
const MARGIN = 0.4;
// A class whose usual box is smaller than this on the screen is drawn as a cloud.
export const LEAST_SCREEN_PX = 5;
const BIN_SCREEN_PX = 4;

export function unpack(buffer) {
  const head = new Uint32Array(buffer, 0, 8);
  if (head[0] !== MAGIC) throw new Error("the server's answer is not made of detections");
  const [, n, total, classes, outlined, points] = head;
  let at = 32;
  const take = (Kind, length) => { const array = new Kind(buffer, at, length); at += 4 * length; return array; };
  const counts = take(Uint32Array, classes);
  const found = { n, total, counts, boxes: take(Float32Array, 4 * n), scores: take(Float32Array, n), classes: take(Uint32Array, n), ids: take(Uint32Array, n), offsets: null, points: null };
  if (outlined) {
    found.offsets = take(Uint32Array, n + 1);
    found.points = take(Float32Array, 2 * points);
  }
  return found;
}

const holds = (outer, inner) => outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];
const same = (one, other) => one.length === other.length && one.every((value, at) => value === other[at]);

function wider(rectangle, slide, step = 1) {
  const [x0, y0, x1, y1] = rectangle;
  const dx = MARGIN * (x1 - x0), dy = MARGIN * (y1 - y0);
  return [
    Math.max(0, Math.floor((x0 - dx) / step) * step),
    Math.max(0, Math.floor((y0 - dy) / step) * step),
    Math.min(Math.ceil(slide.width_px / step) * step, Math.ceil((x1 + dx) / step) * step),
    Math.min(Math.ceil(slide.height_px / step) * step, Math.ceil((y1 + dy) / step) * step),
  ];
}

function within(rectangle, slide) {
  return [Math.max(0, rectangle[0]), Math.max(0, rectangle[1]), Math.min(slide.width_px, rectangle[2]), Math.min(slide.height_px, rectangle[3])];
}

const query = (rectangle, filter, more) => new URLSearchParams({
  x0: rectangle[0], y0: rectangle[1], x1: rectangle[2], y1: rectangle[3], min: filter.least, classes: filter.classes.join(","), ...more,
});

// One kind of answer for what is in view: at most one request is on its way, and the latest wish is what follows it.
class Latest {
  constructor(onChange) {
    this.onChange = onChange;
    this.value = null;
    this.wish = null;
    this.busy = false;
    this.life = 0;
  }

  forget() { this.value = this.wish = null; this.life += 1; }

  want(wish) {
    this.wish = wish;
    if (!this.busy) this.#work();
  }

  async #work() {
    this.busy = true;
    while (this.wish) {
      const wish = this.wish;
      const { life } = this;
      this.wish = null;
      try {
        const value = await wish.fetch();
        if (life === this.life) { this.value = { ...wish, ...value }; this.onChange(null); }
      } catch (error) {
        if (life === this.life) this.onChange(error);
      }
    }
    this.busy = false;
  }
}

export class Found {
  constructor(onChange) {
    this.vectors = new Latest(onChange);
    this.clouds = new Latest(onChange);
    this.slide = null;
  }

  open(slide) {
    this.slide = slide;
    this.path = `slides/${encodeURIComponent(slide.name)}`;
    this.vectors.forget();
    this.clouds.forget();
  }

  // Which classes are drawn one by one at this scale, and which as clouds; those that were not found are neither.
  split(classes, scale) {
    const single = number => this.slide.classes[number].median_px * scale >= LEAST_SCREEN_PX;
    const there = classes.filter(number => this.slide.classes[number].count_at[0] > 0);
    return { single: there.filter(single), cloudy: there.filter(number => !single(number)) };
  }

  // Ask for whatever the view lacks.
  look(rectangle, scale, filter) {
    const view = within(rectangle, this.slide);
    if (view[0] >= view[2] || view[1] >= view[3]) return;
    const { single, cloudy } = this.split(filter.classes, scale);
    this.#lookSingle(view, scale, { least: filter.least, classes: single });
    this.#lookCloudy(view, scale, { least: filter.least, classes: cloudy });
  }

  #lookSingle(view, scale, filter) {
    const { vectors } = this;
    if (!filter.classes.length) return;
    const last = vectors.value;
    if (last && holds(last.rectangle, view)) {
      const whole = last.found.total === last.found.n;
      const wide = filter.classes.every(number => last.filter.classes.includes(number)) && last.filter.least <= filter.least;
      const fine = !last.found.points || scale <= 2.5 * last.scale;
      const close = (last.rectangle[2] - last.rectangle[0]) < 2.5 * (view[2] - view[0]);
      if (wide && fine && (whole || (close && last.filter.least === filter.least && same(last.filter.classes, filter.classes)))) return;
    }
    const rectangle = wider(view, this.slide);
    const address = `${this.path}/detections?${query(rectangle, filter, { limit: MOST, step: (0.7 / scale).toPrecision(3) })}`;
    vectors.want({ rectangle, filter, scale, fetch: async () => ({ found: unpack(await (await ask(address)).arrayBuffer()) }) });
  }

  #lookCloudy(view, scale, filter) {
    const { clouds } = this;
    if (!filter.classes.length) return;
    const bin = 2 ** Math.round(Math.log2(BIN_SCREEN_PX / scale));
    const last = clouds.value;
    if (last && last.bin === bin && last.filter.least === filter.least && same(last.filter.classes, filter.classes) && holds(last.rectangle, view)) return;
    const rectangle = wider(view, this.slide, 16 * bin);
    const address = `${this.path}/density.png?${query(rectangle, filter, { bin, v: this.slide.version })}`;
    clouds.want({ rectangle, filter, bin, fetch: async () => ({ image: await createImageBitmap(await (await ask(address)).blob()) }) });
  }

  async counts(rectangle, filter) {
    const view = within(rectangle, this.slide);
    if (view[0] >= view[2] || view[1] >= view[3]) return this.slide.classes.map(() => 0);
    return (await (await ask(`${this.path}/counts?${query(view, filter)}`)).json()).counts;
  }
}

// The one canvas over the slide: clouds, boxes and outlines of what is in view, and the detection that was picked.

// Up to this many boxes are drawn anew in each frame; an outline counts as several. How long drawing takes cannot be
// seen from here: a canvas only notes what to draw, and does it later.
const FEW = 1500;
const OUTLINE_WEIGHT = 8;
// About how long one box takes where a processor draws it.
const BOX_MS = 0.001;
// Boxes smaller than this on the screen are filled dots, and outlines smaller than that are boxes.
const DOT_PX = 4;
const OUTLINE_PX = 10;
const EDGE = 0.25;

export class Overlay {
  constructor(map) {
    this.map = map;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "marks";
    map.viewer.canvas.append(this.canvas);
    this.context = this.canvas.getContext("2d");
    this.kept = document.createElement("canvas");
    this.keptAt = null;
    this.weight = 0;
    this.drawn_ms = 0;
    this.solid = 0.9;
    this.picked = null;
    this.drawn = 0;
  }

  // What was kept of the vectors is out of date.
  stale() { this.keptAt = null; }

  draw(found, filter, { atRest }) {
    const { width, height } = this.map.size();
    const ratio = globalThis.devicePixelRatio || 1;
    const w = Math.round(width * ratio), h = Math.round(height * ratio);
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.stale();
    }
    const at = this.map.transform();
    const begun = performance.now();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, w, h);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const { single, cloudy } = found.split(filter.classes, at.scale);
    this.#clouds(found.clouds.value, cloudy, at);
    this.drawn = 0;
    const data = found.vectors.value;
    if (data && single.length) this.#vectors(data.found, { single, least: Math.fround(filter.least) }, at, { width, height, ratio, atRest });
    if (this.picked) this.#picked(at);
    this.drawn_ms = performance.now() - begun;
  }

  #clouds(value, cloudy, at) {
    if (!value || !cloudy.length) return;
    const [x0, y0] = value.rectangle;
    const { image, bin } = value;
    this.context.globalAlpha = this.solid;
    this.context.imageSmoothingEnabled = true;
    this.context.drawImage(image, at.x + x0 * at.scale, at.y + y0 * at.scale, image.width * bin * at.scale, image.height * bin * at.scale);
    this.context.globalAlpha = 1;
  }

  // Few are drawn anew in each frame. Many are drawn once, wider than the view, and that picture follows the moves.
  #vectors(data, shown, at, { width, height, ratio, atRest }) {
    const { context, kept } = this;
    context.globalAlpha = this.solid;
    if (this.weight <= FEW) {
      this.drawn = this.#paint(context, data, shown, at, [0, 0, width, height]);
      this.keptAt = null;
    } else {
      const edgeX = EDGE * width, edgeY = EDGE * height;
      const old = this.keptAt;
      const factor = old ? at.scale / old.scale : 0;
      const left = old ? at.x - factor * old.x - factor * edgeX : 0;
      const top = old ? at.y - factor * old.y - factor * edgeY : 0;
      const covers = old && left <= 0.5 && top <= 0.5 && left + factor * (width + 2 * edgeX) >= width - 0.5 && top + factor * (height + 2 * edgeY) >= height - 0.5;
      const wanted = !old || old.data !== data || old.least !== shown.least || old.single !== shown.single.join() || (atRest && factor !== 1) || !covers || factor > 2 || factor < 0.5;
      const rested = performance.now() - (old ? old.when : 0) > 10 * BOX_MS * this.weight;
      if (wanted && (!old || atRest || rested)) {
        this.#keep(data, shown, at, { width, height, ratio, edgeX, edgeY });
        context.drawImage(kept, -edgeX, -edgeY, width + 2 * edgeX, height + 2 * edgeY);
      } else {
        context.drawImage(kept, left, top, factor * (width + 2 * edgeX), factor * (height + 2 * edgeY));
      }
      this.drawn = this.keptAt.drawn;
    }
    context.globalAlpha = 1;
  }

  #keep(data, shown, at, { width, height, ratio, edgeX, edgeY }) {
    const { kept } = this;
    const w = Math.round((width + 2 * edgeX) * ratio), h = Math.round((height + 2 * edgeY) * ratio);
    if (kept.width !== w || kept.height !== h) { kept.width = w; kept.height = h; }
    const context = kept.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, w, h);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.translate(edgeX, edgeY);
    const drawn = this.#paint(context, data, shown, at, [-edgeX, -edgeY, width + edgeX, height + edgeY]);
    this.keptAt = { ...at, data, least: shown.least, single: shown.single.join(), when: performance.now(), drawn };
  }

  // Each box is drawn by itself, on whole pixels: thousands of them in one path take ten times as long.
  #paint(context, data, { single, least }, { scale, x, y }, [left, top, right, bottom]) {
    const { boxes, scores, classes, offsets, points, n } = data;
    const shows = this.map.slide.classes.map((_, number) => single.includes(number));
    let drawn = 0, weight = 0, number = -1;
    context.lineWidth = 2;
    for (let at = 0; at < n; at += 1) {
      if (!shows[classes[at]] || scores[at] < least) continue;
      const x0 = x + boxes[4 * at] * scale, y0 = y + boxes[4 * at + 1] * scale;
      const width = (boxes[4 * at + 2] - boxes[4 * at]) * scale, height = (boxes[4 * at + 3] - boxes[4 * at + 1]) * scale;
      if (x0 + width < left || y0 + height < top || x0 > right || y0 > bottom) continue;
      if (classes[at] !== number) {
        number = classes[at];
        context.strokeStyle = context.fillStyle = this.map.slide.classes[number].color;
      }
      drawn += 1;
      weight += 1;
      const longer = Math.max(width, height);
      if (longer < DOT_PX) {
        context.fillRect(Math.round(x0), Math.round(y0), Math.max(2, Math.round(width)), Math.max(2, Math.round(height)));
      } else if (longer >= OUTLINE_PX && offsets && offsets[at + 1] - offsets[at] > 2) {
        weight += OUTLINE_WEIGHT;
        context.beginPath();
        outline(context, points, offsets[at], offsets[at + 1], { scale, x, y });
        context.stroke();
      } else {
        context.strokeRect(Math.round(x0), Math.round(y0), Math.round(width), Math.round(height));
      }
    }
    this.weight = weight;
    return drawn;
  }

  #picked({ scale, x, y }) {
    const [x0, y0, x1, y1] = this.picked.box;
    const { context } = this;
    for (const [color, width] of [["#ffffff", 5], ["#17181a", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(x + x0 * scale - 3, y + y0 * scale - 3, (x1 - x0) * scale + 6, (y1 - y0) * scale + 6);
    }
  }
}

function outline(context, points, begin, end, { scale, x, y }) {
  context.moveTo(x + points[2 * begin] * scale, y + points[2 * begin + 1] * scale);
  for (let at = begin + 1; at < end; at += 1) context.lineTo(x + points[2 * at] * scale, y + points[2 * at + 1] * scale);
  context.closePath();
}

// The smallest detection at a place, as its position in the data; -1 where there is none.
export function pick(data, { single, least }, { x, y }, slack) {
  let best = -1, smallest = Infinity;
  for (let at = 0; at < data.n; at += 1) {
    if (data.scores[at] < least || !single.includes(data.classes[at])) continue;
    const x0 = data.boxes[4 * at], y0 = data.boxes[4 * at + 1], x1 = data.boxes[4 * at + 2], y1 = data.boxes[4 * at + 3];
    if (x < x0 - slack || y < y0 - slack || x > x1 + slack || y > y1 + slack) continue;
    const size = (x1 - x0) * (y1 - y0);
    if (size < smallest) { smallest = size; best = at; }
  }
  return best;
}

// The area inside an outline, in square level-0 pixels.
export function outlineArea(points, begin, end) {
  let twice = 0;
  for (let at = begin, last = end - 1; at < end; last = at, at += 1) {
    twice += points[2 * last] * points[2 * at + 1] - points[2 * at] * points[2 * last + 1];
  }
  return Math.abs(twice) / 2;
}

// The slide itself: OpenSeadragon, and how level-0 pixels become pixels of the screen.

const OpenSeadragon = globalThis.OpenSeadragon;
const MOST_ZOOM = 8;

// OpenSeadragon writes a style sheet into the page unless it finds its mark; the page's policy forbids it, and the rule
// is in viewer.css. An element of no known kind bears the mark.
function markStyle() {
  const mark = document.createElementNS("urn:mark", "style");
  mark.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(mark);
}

export class SlideMap {
  constructor(element, { onView, onClick }) {
    markStyle();
    this.slide = null;
    this.viewer = new OpenSeadragon.Viewer({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: matchMedia("(min-width: 761px)").matches,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorMaintainSizeRatio: true,
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: 0.5,
      springStiffness: 8,
      zoomPerScroll: 1.3,
      zoomPerClick: 1,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.7,
      maxZoomPixelRatio: MOST_ZOOM,
      maxImageCacheCount: 400,
      imageLoaderLimit: 6,
    });
    this.viewer.addHandler("update-viewport", () => { if (this.slide) onView(); });
    this.viewer.addHandler("canvas-click", event => { if (event.quick && this.slide) onClick(this.toSlide(event.position), event.position); });
    // Its keys for turning and flipping would leave the marks behind.
    this.viewer.addHandler("canvas-key", event => { if (/^[rf]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true; });
  }

  open(slide) {
    this.slide = null;
    return new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", () => { this.slide = slide; resolve(); });
      this.viewer.addOnceHandler("open-failed", event => reject(new Error(event.message)));
      this.viewer.open({
        width: slide.width_px,
        height: slide.height_px,
        tileSize: slide.tile_px,
        tileOverlap: 0,
        minLevel: 0,
        maxLevel: slide.max_level,
        getTileUrl: (level, x, y) => `slides/${encodeURIComponent(slide.name)}/tiles/${slide.version}/${level}/${x}_${y}.jpg`,
      });
    });
  }

  // Screen pixels for a level-0 pixel, and where the slide's corner is on the screen.
  transform() {
    const { viewport } = this.viewer;
    const origin = viewport.pixelFromPointNoRotate(new OpenSeadragon.Point(0, 0), true);
    const scale = viewport.getContainerSize().x * viewport.getZoom(true) / this.slide.width_px;
    return { scale, x: origin.x, y: origin.y };
  }

  size() {
    const { x, y } = this.viewer.viewport.getContainerSize();
    return { width: x, height: y };
  }

  toSlide(point) {
    const { scale, x, y } = this.transform();
    return { x: (point.x - x) / scale, y: (point.y - y) / scale };
  }

  // What is in view: x0, y0, x1, y1 in level-0 pixels.
  rectangle() {
    const { width, height } = this.size();
    const low = this.toSlide({ x: 0, y: 0 });
    const high = this.toSlide({ x: width, y: height });
    return [low.x, low.y, high.x, high.y];
  }

  place() {
    const [x0, y0, x1, y1] = this.rectangle();
    return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, zoom: this.transform().scale };
  }

  goTo({ x, y, zoom }) {
    const { viewport } = this.viewer;
    const width = this.slide.width_px;
    if (zoom !== null) viewport.zoomTo(zoom * width / viewport.getContainerSize().x, undefined, true);
    if (x !== null && y !== null) viewport.panTo(new OpenSeadragon.Point(x / width, y / width), true);
    this.viewer.forceRedraw();
  }

  zoomBy(factor) { this.viewer.viewport.zoomBy(factor); this.viewer.viewport.applyConstraints(); }
  home() { this.viewer.viewport.goHome(); }
}

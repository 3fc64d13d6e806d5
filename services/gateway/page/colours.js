// Colours and patterns of genres, and the colour map of the spectrogram.

// Ten colours a theme, found by search: as far apart as ten can be, to normal, red-blind, green-blind and blue-blind eyes alike
// (at least 0.11 in OKLab), and at least 3:1 against the panel.
const GENRES = {
  dark: ["#58a9f9", "#abfcdc", "#e4bd8b", "#e287a7", "#c74f1c", "#f4e35a", "#956c8c", "#c0cbff", "#a5a817", "#5570db"],
  light: ["#557bb5", "#1f9d8f", "#847f5e", "#8f7cf2", "#944400", "#b97f0a", "#373766", "#6a40aa", "#006669", "#760024"],
};
const MARKS = ["plain", "rising", "dots", "level", "falling"];

// Lightness rises or falls all the way, so that louder always looks louder: [lightness, chroma, hue in degrees] in OKLCH.
const MAPS = {
  dark: [[0.17, 0.02, 205], [0.3, 0.055, 215], [0.44, 0.085, 205], [0.6, 0.1, 175], [0.76, 0.12, 115], [0.88, 0.13, 88], [0.97, 0.06, 90]],
  light: [[0.965, 0.008, 190], [0.88, 0.035, 180], [0.76, 0.07, 185], [0.6, 0.09, 205], [0.45, 0.09, 230], [0.31, 0.08, 262], [0.19, 0.05, 285]],
};

const darkness = matchMedia("(prefers-color-scheme: dark)");

/** `dark` or `light`, as the visitor prefers. */
export const theme = () => (darkness.matches ? "dark" : "light");

/** Calls back when the theme changes. */
export function onThemeChange(listener) {
  darkness.addEventListener("change", listener);
}

/** The colour of the genre at `index` of the model's labels. */
export const genreColour = (index) => (index < 0 ? themeColour("--silence") : GENRES[theme()][index % 10]);

/** The pattern over that colour: after ten genres, colours come again with another one. */
export const genreMark = (index) => MARKS[(index + Math.floor(Math.max(index, 0) / 10)) % MARKS.length] ?? "plain";

/** A colour of the style sheet. */
export function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Black or white, whichever is easier to read on `#rrggbb`. */
export function inkOn(colour) {
  const channels = [1, 3, 5].map((start) => Number.parseInt(colour.slice(start, start + 2), 16) / 255);
  const linear = channels.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.19 ? "#0b1213" : "#ffffff";
}

/** A small patch of a genre's colour and pattern; of none for an `index` below 0. */
export function swatch(index) {
  const patch = document.createElement("span");
  patch.className = `swatch mark-${index < 0 ? "plain" : genreMark(index)}`;
  patch.setAttribute("aria-hidden", "true");
  paintSwatch(patch, index);
  return patch;
}

/** Gives a patch its colour. */
export function paintSwatch(patch, index) {
  patch.style.setProperty("--patch", index < 0 ? "var(--silence)" : `var(--genre-${index % 10})`);
}

/** Puts the theme's colours where the style sheet and the patterns find them. */
export function publishColours() {
  GENRES[theme()].forEach((colour, index) => {
    document.documentElement.style.setProperty(`--genre-${index}`, colour);
  });
}

let table = null;

/** 256 colours of the theme, `[red, green, blue]` bytes one after the other, from the floor to the loudest. */
export function colourMap() {
  if (table?.theme === theme()) return table.colours;
  const stops = MAPS[theme()].map(([lightness, chroma, hue]) => {
    const angle = (hue * Math.PI) / 180;
    return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
  });
  const colours = new Uint8ClampedArray(256 * 3);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (stops.length - 1);
    const index = Math.min(stops.length - 2, Math.floor(place));
    const mixed = stops[index].map((value, axis) => value + (place - index) * (stops[index + 1][axis] - value));
    colours.set(fromOklab(mixed), level * 3);
  }
  table = { theme: theme(), colours };
  return colours;
}

function fromOklab([lightness, a, b]) {
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
  ];
  return linear.map((value) => 255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
}

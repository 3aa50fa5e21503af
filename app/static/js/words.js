// The page's words in the language of the page: English ones are looked up in what the template hands over.

const own = JSON.parse(document.querySelector('meta[name="words"]')?.content || "{}");

/** `en` or `de`, as the page says. */
export const language = document.documentElement.lang || "en";

/** The words with values put in: `_("Asking %(name)s.", { name })`. */
export const _ = (words, values) => fill(text(words), values);

/** The words for one or for several: `ngettext("%(num)s object", "%(num)s objects", 3)`. */
export function ngettext(one, many, num) {
  const forms = [own[one] ?? [one, many]].flat();
  return fill(forms[num === 1 ? 0 : 1], { num: number(num) });
}

/** `1,234.5` or `1.234,5`, with so many digits behind the point. */
export const number = (value, digits = 0) => decimal(digits).format(value);

/** 0.973 is `97%` or `97 %`. */
export const percent = (share, digits = 0) => decimal(digits, "percent").format(share);

const formats = new Map();

const text = (words) => [own[words] ?? words].flat()[0];

function fill(words, values) {
  if (!values) return words;
  return words.replace(/%\((\w+)\)[sd]|%%/g, (whole, name) => (name ? values[name] : "%"));
}

function decimal(digits, style = "decimal") {
  const key = `${style} ${digits}`;
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat(language, { style, minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return formats.get(key);
}

// The same request for a terminal. app/web/pages/curl.py writes the same words; change both together.

/** A command that a shell takes as it stands, one part a line. */
export function command(url, name, fields) {
  const parts = [`-F ${quoted(`image=@${file(name)}`)}`];
  for (const [key, value] of Object.entries(fields)) parts.push(`-F ${quoted(`${key}=${value}`)}`);
  return ["curl", ...parts, quoted(url)].join(" \\\n  ");
}

// As Python's shlex.quote does it.
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

// curl splits at ',' and ';' and trims blanks unless the name stands in double quotes.
function file(name) {
  if (/^[\w.+@%-]+$/.test(name)) return name;
  return `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

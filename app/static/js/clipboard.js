// Copies text, also where the page came over plain HTTP from another machine.

/** Put text on the clipboard. Says whether it worked. */
export async function copy(text) {
  // Browsers offer the new way to secure origins only, and on premises many pages have none.
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed in this browser; the old way may be.
    }
  }
  return copyBySelection(text);
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isCopied;
}

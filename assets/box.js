// The box that a picture fills on the screen, inside an element that is wider or higher; null before it is loaded.
function box(picture) {
  if (!picture?.naturalWidth) return null;
  const outer = picture.getBoundingClientRect();
  const scale = Math.min(outer.width / picture.naturalWidth, outer.height / picture.naturalHeight);
  const width = picture.naturalWidth * scale, height = picture.naturalHeight * scale;
  return {left: outer.left + (outer.width - width) / 2, top: outer.top + (outer.height - height) / 2, width, height};
}

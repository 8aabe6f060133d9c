// Makes large pictures smaller before they are sent. The model looks at a few hundred pixels; the rest would only make
// slow networks slower. What a camera writes beside the picture, as the place, is not sent then.

export const SIDE = 1280; // pixels of the longer side
export const SMALL_SIDE = 640; // for networks on which even that was too slow
const SMALL_BYTES = 400_000; // what is smaller is sent as it is
const QUALITY = 0.9;

// Returns a smaller JPEG, or the file itself where it is small, or nothing that this browser can read.
export async function shrink(file, side = SIDE) {
  if (file.size <= (side < SIDE ? SMALL_BYTES / 4 : SMALL_BYTES)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright, as the camera was held
  } catch {
    return file; // the service may know better
  }
  try {
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // the service, too, lays transparent pictures on white
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const smaller = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    return smaller && smaller.size < file.size ? smaller : file;
  } catch {
    return file; // no memory for it
  } finally {
    bitmap.close();
  }
}

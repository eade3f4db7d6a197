// Pictures and sounds that were dropped, pasted or chosen. They live in this tab until it is closed.

const LARGE = 4 << 20; // bytes of a picture beyond which it is made smaller before it is sent
const SIDE = 2048; // pixels of its longer side then

const uploads = new Map();

/** {id, kind, name, base64, shrunk}, or undefined for one of another tab or another day. */
export const upload = (id) => uploads.get(id);

/** Take a file in. Gives a term of a query; throws when it is neither a picture nor a sound. */
export async function take(file) {
  const kind = kindOf(file);
  if (kind === null) throw new Error(`${file.name || "This"} is neither a picture nor a sound.`);
  const small = kind === "image" && file.size > LARGE ? await shrink(file) : null;
  const id = crypto.getRandomValues(new Uint32Array(2)).join("");
  uploads.set(id, { id, kind, file, name: file.name || `pasted ${kind}`, base64: await base64(small ?? file), shrunk: small !== null });
  return { kind, value: id, weight: 1 };
}

function kindOf(file) {
  if (file.type.startsWith("image/")) return "image";
  if (file.type.startsWith("audio/") || file.type.startsWith("video/")) return "audio";
  const suffix = file.name.toLowerCase().split(".").pop();
  if (["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif"].includes(suffix)) return "image";
  return ["wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "mp4", "mov", "mkv", "webm"].includes(suffix) ? "audio" : null;
}

/** A JPEG of at most SIDE pixels, or null for what this browser cannot decode: the service is asked then. */
async function shrink(file) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
    const canvas = new OffscreenCanvas(Math.round(picture.width * scale), Math.round(picture.height * scale));
    const brush = canvas.getContext("2d");
    brush.fillStyle = "white";
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  } catch {
    return null;
  }
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

/** A small drawing of an uploaded picture, as a canvas. */
export function preview(one, side = 56) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  createImageBitmap(one.file)
    .then((picture) => {
      const edge = Math.min(picture.width, picture.height);
      const [left, top] = [(picture.width - edge) / 2, (picture.height - edge) / 2];
      canvas.getContext("2d").drawImage(picture, left, top, edge, edge, 0, 0, side, side);
    })
    .catch(() => canvas.classList.add("blank"));
  return canvas;
}

// Talks to the page's own server: Gradio's HTTP API (POST starts a call, GET streams what comes of it) and uploads.

/** Sends a file; `onProgress` gets 0 to 1. Resolves to the path that the other functions take. */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const body = new FormData();
    body.append("files", file, file.name || "recording.wav");
    const request = new XMLHttpRequest();
    request.open("POST", "/gradio_api/upload");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Error("The server cannot be reached."));
    request.onload = () => {
      let answer = null;
      try { answer = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status === 200 && Array.isArray(answer) && answer.length) resolve(answer[0]);
      else reject(new Error(answer?.detail || `The upload failed (${request.status}).`));
    };
    request.send(body);
  });
}

/** A path as Gradio describes a file. */
export const asFile = (path) => ({ path, meta: { _type: "gradio.FileData" } });

/** Calls a function of the API; `onUpdate` gets what comes before the last answer. */
export async function call(name, data, onUpdate = () => {}) {
  const unreachable = () => { throw new Error("The server cannot be reached."); };
  const started = await fetch(`/gradio_api/call/${name}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ data }),
  }).catch(unreachable);
  if (!started.ok) throw new Error("The server did not take this.");
  const { event_id: id } = await started.json();
  const stream = await fetch(`/gradio_api/call/${name}/${id}`).catch(unreachable);
  let last = null;
  for await (const [event, value] of events(stream.body)) {
    if (event === "error") throw new Error(value?.error || value?.message || (typeof value === "string" && value) || "Something went wrong on the server.");
    if (event === "generating" && value) { last = value[0]; onUpdate(last); }
    if (event === "complete") return value?.[0] ?? last;
  }
  throw new Error("The connection to the server was lost.");
}

/** [event, data] of a stream of server-sent events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let piece;
    try { piece = await reader.read(); } catch { return; }
    if (piece.done) return;
    text += piece.value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = /^event: (.*)$/m.exec(part), data = /^data: (.*)$/m.exec(part);
      if (event && data) yield [event[1], JSON.parse(data[1])];
    }
  }
}

/** Asks the server to stop a job. */
export const stop = (job) => fetch(`/stop/${job}`, { method: "POST" }).catch(() => {});

/** Tells the server that these folders are no longer needed; works while the page goes away. */
export const forget = (tokens) => tokens.length && navigator.sendBeacon("/forget", tokens.join("\n"));

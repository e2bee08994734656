// Client of the page's server: uploads, and Gradio's HTTP API (POST starts a call, GET streams its events).

/** Upload a file; `onProgress` receives 0 to 1. Resolves to its path on the server. */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const body = new FormData();
    body.append("files", file, file.name || "recording.wav");
    const request = new XMLHttpRequest();  // fetch reports no progress of uploads
    request.responseType = "json";
    request.open("POST", "/gradio_api/upload");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(new Error("The server cannot be reached."));
    request.onload = () => {
      const answer = request.response;
      if (request.status === 200 && answer?.length) resolve(answer[0]);
      else reject(new Error(answer?.detail || `The upload failed (${request.status}).`));
    };
    request.send(body);
  });
}

/** A path as Gradio describes a file. */
export const asFile = (path, name = null) => ({ path, orig_name: name, meta: { _type: "gradio.FileData" } });

/** Call a function of the API; `onUpdate` receives what comes before the last answer. */
export async function call(name, data, onUpdate = () => {}) {
  const started = await fetch(`/gradio_api/call/${name}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ data }),
  }).catch(() => { throw new Error("The server cannot be reached."); });
  if (!started.ok) throw new Error("The server refused the request.");
  const { event_id: id } = await started.json();
  const stream = new EventSource(`/gradio_api/call/${name}/${id}`);
  let last = null;
  return new Promise((resolve, reject) => {
    stream.addEventListener("generating", ({ data }) => {
      last = JSON.parse(data)?.[0] ?? last;
      onUpdate(last);
    });
    stream.addEventListener("complete", ({ data }) => resolve(JSON.parse(data)?.[0] ?? last));
    stream.addEventListener("error", ({ data }) => {  // sent by the server, or without data by the browser
      const error = data ? JSON.parse(data) : "The connection to the server was lost.";
      reject(new Error(error?.error || error?.message || error || "Something went wrong on the server."));
    });
  }).finally(() => stream.close());
}

/** Ask the server to stop a job. */
export const stop = (job) => fetch(`/stop/${job}`, { method: "POST" }).catch(() => {});

/** Tell the server that these folders are no longer needed; works while the page is closed. */
export const forget = (tokens) => tokens.length && navigator.sendBeacon("/forget", tokens.join("\n"));

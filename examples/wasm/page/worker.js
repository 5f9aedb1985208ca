// The worker: a model, and the texts that it tells, away from the page's thread.
//
// Every model has an instance of the module of its own, since linear memory never shrinks: the old one goes with all of
// its memory. Files are written into linear memory as they are read, so a model is in memory once.

const SLICE = 20; // milliseconds of work between two looks at messages
const CONTEXT = 2048; // positions, if the model has so many
const SHOW = 100; // milliseconds between two figures of speed

const PENDING = 0, PIECE = 1, DONE = 3;
const REASONS = ["stopped", "the model ended it", "all tokens told", "the context is full"];

const module = WebAssembly.compileStreaming(fetch("locutor.wasm"));
let model = null; // exports of the instance
let current = 0; // number of what is being done; whoever finds another one gives up

const decoder = new TextDecoder();

/** What the last call said: a piece of text, or why it failed. */
function said(wasm) {
    // Without `slice` a browser may refuse memory that can grow.
    return decoder.decode(new Uint8Array(wasm.memory.buffer, wasm.said_start() >>> 0, wasm.said_len()).slice());
}

function check(wasm, result) {
    if (result < 0) throw new Error(said(wasm));
    return result;
}

/** Lets messages in, without the four milliseconds that timers take at least. */
const { port1, port2 } = new MessageChannel();
let wake = null;
port1.onmessage = () => wake();
function breathe() {
    return new Promise((resolve) => {
        wake = resolve;
        port2.postMessage(null);
    });
}

/** Reads a file to where the instance wants it. Returns whether that was to the end. */
async function place(wasm, file, number) {
    const start = file.size < 2 ** 32 ? wasm.place_file(file.size) >>> 0 : 0;
    if (!start) throw new Error(`${file.name}: the browser has no ${file.size} bytes of memory for this page`);
    let done = 0;
    for (let reader = file.stream().getReader(); ; ) {
        const chunk = await reader.read();
        if (chunk.done) break;
        if (current !== number) {
            await reader.cancel();
            return false;
        }
        // More than was told would be a file that is being written to.
        if (done + chunk.value.length > file.size) throw new Error(`${file.name}: the file grew`);
        new Uint8Array(wasm.memory.buffer, start, file.size).set(chunk.value, done);
        done += chunk.value.length;
        postMessage({ what: "opening", number, done, size: file.size });
    }
    if (done !== file.size) throw new Error(`${file.name}: the file ended early`);
    return true;
}

async function open({ file, number }) {
    model = null;
    const instance = await WebAssembly.instantiate(await module, { host: { now: () => performance.now() } });
    const wasm = instance.exports;
    if (file && !(await place(wasm, file, number))) return;
    if (current !== number) return;
    check(wasm, wasm.open(CONTEXT));
    model = wasm;
    const [sizes, memory] = [[0, 1, 2].map((what) => wasm.bytes_of(what)), wasm.bytes_of(3) >>> 0];
    postMessage({
        what: "opened",
        number,
        name: file ? file.name : "The story model inside the module",
        bytes: { file: sizes[0] >>> 0, tables: sizes[1], session: sizes[2] >>> 0, memory },
    });
}

async function tell({ prompt, tokens, temperature, seed, number }) {
    const wasm = model;
    if (!wasm) throw new Error("no model is open");
    const input = new Uint8Array(wasm.memory.buffer, wasm.input_start() >>> 0, wasm.input_len());
    const { read, written } = new TextEncoder().encodeInto(prompt, input);
    if (read < prompt.length) throw new Error(`the prompt is longer than ${input.length} bytes`);
    const started = performance.now();
    const promptTokens = check(wasm, wasm.begin(written, tokens, temperature, seed >>> 0));
    // The first token ends the prompt, and is not counted among those whose time is known.
    let count = 0, first = 0, shown = started;
    const rate = (now) => (count > 1 ? ((count - 1) * 1000) / (now - first) : 0);
    let why = 0;
    for (let breathed = started; ; ) {
        const kind = check(wasm, wasm.step(SLICE));
        const now = performance.now();
        if (kind === DONE) {
            why = wasm.finish();
            break;
        }
        if (kind !== PENDING && ++count === 1) first = now;
        if (kind === PIECE) postMessage({ what: "text", number, text: said(wasm) });
        if (now - breathed >= SLICE) {
            if (now - shown >= SHOW && count > 1) {
                postMessage({ what: "pace", number, tokens: count, rate: rate(now) });
                shown = now;
            }
            await breathe();
            if (current !== number) break;
            breathed = now;
        }
    }
    const now = performance.now();
    const all = Array.from(new Uint32Array(wasm.memory.buffer, wasm.tokens_start() >>> 0, wasm.tokens_len()));
    const promptRate = (promptTokens * 1000) / Math.max(first - started, 0.001);
    const answer = { tokens: count, rate: rate(now), why: REASONS[why], prompt: promptTokens, promptRate, all };
    postMessage({ what: "told", number, ...answer });
}

const requests = { open, tell };

onmessage = async ({ data }) => {
    // To stop is to be doing something else.
    current = data.what === "stop" ? 0 : data.number;
    if (data.what === "stop") return;
    try {
        await requests[data.what](data);
    } catch (error) {
        // A trap leaves the instance in no known state.
        if (error instanceof WebAssembly.RuntimeError) model = null;
        postMessage({ what: "failed", number: data.number, reason: error.message, open: model !== null });
    }
};

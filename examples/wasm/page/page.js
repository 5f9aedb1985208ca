// The page: what is shown, and nothing that takes long. All work is done by worker.js, so the page never waits.
//
// What the worker says has the number of what was asked, so that an answer that nobody waits for any more is not shown.

const at = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const MIB = 1 << 20;

let asked = 0;
// Also for tests: the ids of the last text, prompt included.
let ids = [];

function ask(message) {
    at("error").textContent = "";
    worker.postMessage({ ...message, number: ++asked });
}

function busy(telling) {
    at("start").disabled = telling;
    at("stop").disabled = !telling;
    document.body.dataset.state = telling ? "telling" : "ready";
}

function open(file) {
    busy(false);
    at("start").disabled = true;
    document.body.dataset.state = "opening";
    at("model").textContent = file ? `Opening ${file.name}…` : "Loading…";
    at("status").textContent = "";
    ask({ what: "open", file });
}

const answers = {
    opening({ done, size }) {
        at("status").textContent = `${Math.floor((100 * done) / size)} % of ${(size / MIB).toFixed(1)} MiB read`;
    },
    opened({ name, bytes }) {
        const { file, tables, session, memory } = bytes;
        const parts = `model ${file}, tables ${tables}, session ${session}, the whole module ${memory}`;
        at("model").textContent = `${name}. Bytes of memory: ${parts}.`;
        at("status").textContent = "";
        busy(false);
    },
    text({ text }) {
        at("text").append(text);
    },
    pace({ tokens, rate }) {
        at("status").textContent = `${tokens} tokens, ${rate.toFixed(1)} tokens/s`;
    },
    told({ tokens, rate, why, prompt, promptRate, all }) {
        ids = all;
        document.body.dataset.ids = ids.join(" ");
        const speeds = `${rate.toFixed(1)} tokens/s, prompt of ${prompt} at ${promptRate.toFixed(1)} tokens/s`;
        at("status").textContent = `${tokens} tokens, ${speeds}; ${why}`;
        busy(false);
    },
    failed({ reason, open }) {
        at("error").textContent = reason;
        if (!open) at("model").textContent = "No model.";
        busy(false);
        at("start").disabled = !open;
    },
};

worker.onmessage = ({ data }) => {
    if (data.number === asked) answers[data.what](data);
};
worker.onerror = (event) => answers.failed({ reason: `worker: ${event.message}`, open: false });

at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const prompt = at("prompt").value;
    const bold = document.createElement("b");
    bold.textContent = prompt;
    at("text").replaceChildren(bold);
    delete document.body.dataset.ids;
    busy(true);
    ask({
        what: "tell",
        prompt,
        tokens: at("tokens").valueAsNumber || 1,
        temperature: at("temperature").valueAsNumber || 0,
        seed: at("seed").valueAsNumber || 0,
    });
});
// Of the text that is being told: it keeps its number.
at("stop").addEventListener("click", () => worker.postMessage({ what: "stop", number: asked }));

at("file").addEventListener("change", () => at("file").files[0] && open(at("file").files[0]));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    // Also beside the frame: a browser would leave the page for the file.
    document.addEventListener(name, (event) => {
        event.preventDefault();
        at("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
        if (name === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
    });
}

open(null);

// Runs a program of WebAssembly's system interface (WASI preview 1) under Node.js; `cargo test` uses it as a runner.
//
//   node --no-warnings tools/wasi.mjs PROGRAM [ARGUMENT...]
//
// Its exit status is the program's. A program that traps, as one that panics does, ends with 1 and a stack of names.
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';

const [program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [program, ...rest], env: process.env, preopens: { '.': '.' } });
// What the linker did not find, functions for threads in a C library without them, ends the program when it is called.
const missing = (_, name) => () => {
    throw new Error(`${name} is called, which this machine does not have`);
};
const imports = { ...wasi.getImportObject(), env: new Proxy({}, { get: missing }) };
const module = await WebAssembly.compile(await readFile(program));
process.exitCode = wasi.start(await WebAssembly.instantiate(module, imports));

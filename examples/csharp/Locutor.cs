// Locutor from C#: one file, over the shared library, for .NET, Mono and engines that have either.
//
//     cargo build --release -p locutor-ffi          # target/release/liblocutor.so
//     mcs -out:generate.exe examples/csharp/Locutor.cs
//     LD_LIBRARY_PATH=target/release mono generate.exe -m examples/model/story.gguf --seed 42 "Once upon a time"
//
//     using (var model = new Model("story.gguf"))
//     using (var session = model.NewSession(context: 256)) {
//         session.Feed("Once upon a time");
//         foreach (var piece in session.Generate(new Sampler { Seed = 42 }, maxTokens: 100)) Console.Write(piece);
//     }
//
// `include/locutor.h` is the contract; this file says the same to P/Invoke for what a program needs that streams text.
// What is missing here is declared like the rest. Texts are those of every other host.
//
// Threads. A model may be used by any threads at the same time. A session does one call at a time, and answers another
// one with an error; Cancel alone may be called meanwhile. Objects may be disposed of in any order, as a session keeps
// its model; one that is not is destroyed when the garbage collector finds it.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Locutor {
    /// <summary>A call that failed. The object is as it was before.</summary>
    public sealed class LocutorException : Exception {
        /// <summary>The number of the header's LOCUTOR_ERR_*.</summary>
        public int Status { get; private set; }

        public LocutorException(int status, string text) : base(text) { Status = status; }
    }

    /// <summary>How tokens are chosen; the members are those of locutor_sampler_params.</summary>
    public sealed class Sampler {
        public float Temperature = 0.8f, TopP = 0.95f, MinP = 0.05f;
        public uint TopK = 40;
        public float RepeatPenalty = 1, FrequencyPenalty, PresencePenalty;
        public uint PenaltyLastN = 64;
        public ulong Seed;

        /// <summary>The most probable token, always.</summary>
        public static Sampler Greedy { get { return new Sampler { Temperature = 0 }; } }
    }

    /// <summary>A model file. Reads the whole file when it is made.</summary>
    public sealed class Model : IDisposable {
        internal readonly ModelHandle Handle;

        /// <param name="path">A GGUF file.</param>
        /// <param name="map">Map the file instead of reading it; nobody may then change it while the model lives.</param>
        public Model(string path, bool map = false) {
            if (Native.locutor_abi() != Native.Abi)
                throw new LocutorException(0, "liblocutor has another ABI than this file");
            var p = new Native.ModelParams();
            Native.Check(Native.locutor_model_params_init(ref p, Native.SizeOf<Native.ModelParams>()));
            var bytes = Native.Utf8(path + "\0");
            var pinned = GCHandle.Alloc(bytes, GCHandleType.Pinned);
            try {
                p.path = pinned.AddrOfPinnedObject();
                p.flags = map ? 1u : 0;
                var error = Native.NewError();
                var status = Native.locutor_model_create(ref p, out Handle, ref error);
                Native.Check(status, ref error);
            } finally {
                pinned.Free();
            }
        }

        /// <summary>A session, in one block of memory that never grows. 0 asks for the default.</summary>
        public Session NewSession(uint context = 0, uint batch = 0, uint threads = 1) {
            var p = new Native.SessionParams();
            Native.Check(Native.locutor_session_params_init(ref p, Native.SizeOf<Native.SessionParams>()));
            p.context = context;
            p.batch = batch;
            p.threads = threads;
            SessionHandle handle;
            var error = Native.NewError();
            var status = Native.locutor_session_create(Handle, ref p, out handle, ref error);
            Native.Check(status, ref error);
            return new Session(handle);
        }

        public void Dispose() { Handle.Dispose(); }
    }

    /// <summary>Why a generation ended.</summary>
    public enum Finish { None = 0, End = 1, Stop = 2, MaxTokens = 3 }

    /// <summary>A conversation with a model.</summary>
    public sealed class Session : IDisposable {
        readonly SessionHandle handle;

        internal Session(SessionHandle handle) { this.handle = handle; }

        /// <summary>Why the last generation ended.</summary>
        public Finish Finish { get; private set; }

        /// <summary>Adds text behind the last token; it is computed by what generates.</summary>
        /// <param name="markup">Whether texts of control tokens become these tokens: for text of the program's own.</param>
        public void Feed(string text, bool markup = false) {
            var bytes = Native.Utf8(text);
            Check(Native.locutor_session_feed_text(handle, bytes, Native.Length(bytes), markup ? 1u : 0, IntPtr.Zero));
        }

        /// <summary>All tokens, given and generated.</summary>
        public uint[] Tokens {
            get {
                IntPtr tokens;
                UIntPtr n;
                Check(Native.locutor_session_tokens(handle, out tokens, out n));
                var signed = new int[(int)n];
                if (signed.Length > 0) Marshal.Copy(tokens, signed, 0, signed.Length);
                return Array.ConvertAll(signed, id => unchecked((uint)id));
            }
        }

        /// <summary>The pieces of a text that goes on, as they become certain. Ends at the end of the text, behind
        /// maxTokens tokens, or where the consumer leaves the loop; another call then goes on from there.</summary>
        /// <param name="units">Work between two looks at the consumer, of some ten thousand multiplications each, or 0
        /// for whole tokens. An empty piece says that it was not enough.</param>
        public IEnumerable<string> Generate(Sampler sampler, ulong maxTokens = ulong.MaxValue, ulong units = 0) {
            var p = new Native.SamplerParams();
            Native.Check(Native.locutor_sampler_params_init(ref p, Native.SizeOf<Native.SamplerParams>()));
            p.temperature = sampler.Temperature;
            p.top_k = sampler.TopK;
            p.top_p = sampler.TopP;
            p.min_p = sampler.MinP;
            p.repeat_penalty = sampler.RepeatPenalty;
            p.frequency_penalty = sampler.FrequencyPenalty;
            p.presence_penalty = sampler.PresencePenalty;
            p.penalty_last_n = sampler.PenaltyLastN;
            p.seed = sampler.Seed;
            Check(Native.locutor_session_set_sampler(handle, ref p));
            Check(Native.locutor_session_set_max_tokens(handle, maxTokens));
            var budget = new Native.Budget();
            Native.Check(Native.locutor_budget_init(ref budget, Native.SizeOf<Native.Budget>()));
            budget.units = units;
            var e = new Native.Event();
            Native.Check(Native.locutor_event_init(ref e, Native.SizeOf<Native.Event>()));
            Finish = Finish.None;
            while (true) {
                Check(Native.locutor_session_step(handle, ref budget, ref e));
                if (e.kind == Native.Done) {
                    Finish = (Finish)e.finish;
                    yield break;
                }
                // The text is the library's, until the next call.
                var bytes = new byte[(int)e.text_len];
                if (bytes.Length > 0) Marshal.Copy(e.text, bytes, 0, bytes.Length);
                yield return Encoding.UTF8.GetString(bytes);
            }
        }

        /// <summary>Forgets all tokens from position `length` on.</summary>
        public void Truncate(long length) { Check(Native.locutor_session_truncate(handle, (UIntPtr)length)); }

        /// <summary>Ends the call that is computing, or the next one: it throws. Any thread may call.</summary>
        public void Cancel() { Native.Check(Native.locutor_session_cancel(handle)); }

        public void Dispose() { handle.Dispose(); }

        void Check(int status) {
            if (status == 0) return;
            var error = Native.NewError();
            // A busy session does not say more.
            if (Native.locutor_session_get_error(handle, ref error) != 0 || error.code != status)
                Native.Check(status);
            Native.Check(status, ref error);
        }
    }

    /// <summary>Owns a locutor_model.</summary>
    public sealed class ModelHandle : SafeHandleZeroOrMinusOneIsInvalid {
        public ModelHandle() : base(true) { }

        protected override bool ReleaseHandle() {
            Native.locutor_model_destroy(handle);
            return true;
        }
    }

    /// <summary>Owns a locutor_session.</summary>
    public sealed class SessionHandle : SafeHandleZeroOrMinusOneIsInvalid {
        public SessionHandle() : base(true) { }

        protected override bool ReleaseHandle() {
            Native.locutor_session_destroy(handle);
            return true;
        }
    }

    /// <summary>What locutor.h says, as P/Invoke wants it.</summary>
    static class Native {
        const string Library = "locutor";
        public const uint Abi = 1;
        public const int Done = 2;

        [StructLayout(LayoutKind.Sequential)]
        public struct Error {
            public uint struct_size;
            public int code;
            [MarshalAs(UnmanagedType.ByValArray, SizeConst = 504)] public byte[] text;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct ModelParams {
            public uint struct_size, flags;
            public IntPtr path, data;
            public ulong data_len;
            public IntPtr read, read_user;
            public ulong read_len, offset, len;
            public int fd;
            public uint reserved;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct SessionParams {
            public uint struct_size, flags, context, batch, logits, threads, text_bytes, stops, stop_bytes, kv_keys;
            public uint kv_values, precision, sequences, positions, decode_threads, policy, keep;
            public IntPtr isa, parallel_for, parallel_for_user;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct SamplerParams {
            public uint struct_size;
            public float temperature;
            public uint top_k;
            public float top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
            public uint penalty_last_n, n_logit_bias;
            public ulong seed;
            public IntPtr logit_bias;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct Budget {
            public uint struct_size, reserved;
            public ulong units, until;
            public IntPtr clock, clock_user;
        }

        [StructLayout(LayoutKind.Sequential)]
        public struct Event {
            public uint struct_size;
            public int kind, finish;
            public uint token;
            public IntPtr text;
            public ulong text_len;
        }

        [DllImport(Library)] public static extern uint locutor_abi();
        [DllImport(Library)] public static extern IntPtr locutor_status_text(int status);
        [DllImport(Library)] public static extern int locutor_error_init(ref Error error, UIntPtr size);
        [DllImport(Library)] public static extern int locutor_model_params_init(ref ModelParams p, UIntPtr size);
        [DllImport(Library)]
        public static extern int locutor_model_create(ref ModelParams p, out ModelHandle model, ref Error error);
        [DllImport(Library)] public static extern void locutor_model_destroy(IntPtr model);
        [DllImport(Library)] public static extern int locutor_session_params_init(ref SessionParams p, UIntPtr size);
        [DllImport(Library)]
        public static extern int locutor_session_create(ModelHandle model, ref SessionParams p, out SessionHandle session,
                                                        ref Error error);
        [DllImport(Library)] public static extern void locutor_session_destroy(IntPtr session);
        [DllImport(Library)] public static extern int locutor_session_get_error(SessionHandle session, ref Error error);
        [DllImport(Library)]
        public static extern int locutor_session_feed_text(SessionHandle session, byte[] text, UIntPtr len, uint flags,
                                                           IntPtr added);
        [DllImport(Library)]
        public static extern int locutor_session_tokens(SessionHandle session, out IntPtr tokens, out UIntPtr n);
        [DllImport(Library)] public static extern int locutor_session_truncate(SessionHandle session, UIntPtr len);
        [DllImport(Library)] public static extern int locutor_session_cancel(SessionHandle session);
        [DllImport(Library)] public static extern int locutor_sampler_params_init(ref SamplerParams p, UIntPtr size);
        [DllImport(Library)]
        public static extern int locutor_session_set_sampler(SessionHandle session, ref SamplerParams p);
        [DllImport(Library)] public static extern int locutor_session_set_max_tokens(SessionHandle session, ulong n);
        [DllImport(Library)] public static extern int locutor_budget_init(ref Budget budget, UIntPtr size);
        [DllImport(Library)] public static extern int locutor_event_init(ref Event e, UIntPtr size);
        [DllImport(Library)]
        public static extern int locutor_session_step(SessionHandle session, ref Budget budget, ref Event e);

        public static UIntPtr SizeOf<T>() { return (UIntPtr)(uint)Marshal.SizeOf(typeof(T)); }

        public static UIntPtr Length(byte[] bytes) { return (UIntPtr)(uint)bytes.Length; }

        public static byte[] Utf8(string text) { return Encoding.UTF8.GetBytes(text); }

        public static Error NewError() {
            var error = new Error { text = new byte[504] };
            Check(locutor_error_init(ref error, SizeOf<Error>()));
            return error;
        }

        public static void Check(int status) {
            if (status != 0) throw new LocutorException(status, Marshal.PtrToStringAnsi(locutor_status_text(status)));
        }

        public static void Check(int status, ref Error error) {
            if (status == 0) return;
            var end = Array.IndexOf(error.text, (byte)0);
            throw new LocutorException(status, Encoding.UTF8.GetString(error.text, 0, end < 0 ? error.text.Length : end));
        }
    }

    /// <summary>A text that goes on: the command line of examples/generate.c in short.</summary>
    static class Program {
        static int Usage() {
            Console.Error.WriteLine("usage: generate -m FILE [-n TOKENS] [--seed S] [--greedy] [--threads N] [--ids] TEXT");
            return 2;
        }

        static int Main(string[] args) {
            string path = null, text = null;
            var sampler = new Sampler { Temperature = 0.7f, MinP = 0 };
            var max = ulong.MaxValue;
            uint threads = 1;
            var ids = false;
            for (var i = 0; i < args.Length; i++) {
                var number = 0ul;
                var next = i + 1 < args.Length ? args[i + 1] : "";
                var given = ulong.TryParse(next, NumberStyles.None, CultureInfo.InvariantCulture, out number);
                if (args[i] == "--greedy") sampler.Temperature = 0;
                else if (args[i] == "--ids") ids = true;
                else if (args[i] == "-m") { path = next; i++; }
                else if (args[i] == "-n" && given) { max = number; i++; }
                else if (args[i] == "--seed" && given) { sampler.Seed = number; i++; }
                else if (args[i] == "--threads" && given && number <= 1024) { threads = (uint)number; i++; }
                else if (text == null && !args[i].StartsWith("-", StringComparison.Ordinal)) text = args[i];
                else return Usage();
            }
            if (string.IsNullOrEmpty(path) || text == null) return Usage();
            try {
                using (var model = new Model(path))
                using (var session = model.NewSession(threads: threads)) {
                    var output = Console.OpenStandardOutput();
                    Action<string> write = piece => {
                        var bytes = Native.Utf8(piece);
                        output.Write(bytes, 0, bytes.Length);
                    };
                    session.Feed(text, markup: true);
                    if (!ids) write(text);
                    foreach (var piece in session.Generate(sampler, max)) if (!ids) write(piece);
                    write(ids ? string.Join(" ", session.Tokens) + "\n" : "\n");
                    return 0;
                }
            } catch (LocutorException error) {
                Console.Error.WriteLine("generate: error: " + error.Message);
                return 1;
            }
        }
    }
}

//! Raw pointers from C: the only file of this crate with `unsafe` code.
//!
//! # The contract
//! Every exported function takes what C gives it as one of the types here. They are made by C alone: a Rust program
//! cannot link this crate. So the promises of `include/locutor.h` are the safety contract of this file, and "the
//! header's promise" in a `SAFETY` line means: a pointer that is not NULL points to as much memory as the header says,
//! readable or writable as it says, for as long as it says; an object's pointer comes from the function that gave it,
//! and the object is not destroyed. What can be checked is checked: NULL, alignment, lengths, sizes of structures, and
//! that a session is in one call at a time.
#![allow(unsafe_code)]

use crate::status::Status;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use engine::format::{FileBytes, FormatError, ModelBytes};
use engine::mem::aligned::Block;
use engine::mem::{ALIGN, MemError};
use std::fs::File;
use std::path::Path;

/// `const T *`.
#[repr(transparent)]
pub struct In<T>(*const T);

/// `T *`, to be written.
#[repr(transparent)]
pub struct Out<T>(*mut T);

/// `void *` of the host, handed back to its callbacks and never looked into.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct User(pub *mut c_void);

// SAFETY: the library only hands the value back; the header asks callbacks that run on several threads to cope.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}
impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

/// Numbers that any bytes are: what arrays from C may be made of.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for f64 {}
impl Number for usize {}
impl Number for engine::sample::Bias {}
impl<T> Number for In<T> {}

impl<T> In<T> {
    /// A pointer to the first of `values`, to lend them to C.
    pub fn to(values: &[T]) -> Self {
        Self(values.as_ptr())
    }

    /// The NULL pointer.
    pub const fn null() -> Self {
        Self(ptr::null())
    }

    /// Whether it is NULL.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same address, as bytes or whatever else the header says.
    pub fn cast<U>(self) -> In<U> {
        In(self.0.cast())
    }

    /// The array of `len` elements; NULL stands for an empty one. The lifetime is what the header says.
    pub fn slice<'a>(self, len: usize) -> Result<&'a [T], Status>
    where
        T: Number,
    {
        if len == 0 {
            return Ok(&[]);
        }
        check_array(self.0, len)?;
        // SAFETY: not NULL, aligned, a length within the address space; the rest is the header's promise.
        Ok(unsafe { core::slice::from_raw_parts(self.0, len) })
    }

    /// The text of `len` bytes.
    pub fn text<'a>(self, len: usize) -> Result<&'a str, Status> {
        core::str::from_utf8(self.cast::<u8>().slice(len)?).map_err(|_| Status::UTF8)
    }

    /// The bytes before the first 0.
    pub fn name<'a>(self) -> Result<&'a CStr, Status> {
        if self.0.is_null() {
            return Err(Status::ARGUMENT);
        }
        // SAFETY: the header's promise: a 0 ends it.
        Ok(unsafe { CStr::from_ptr(self.0.cast::<c_char>()) })
    }
}

impl<T> Out<T> {
    /// A pointer to the first of `values`, for C to fill.
    pub fn to(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The NULL pointer.
    pub const fn null() -> Self {
        Self(ptr::null_mut())
    }

    /// Whether it is NULL.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The pointer if it can be written through, else an error: to ask before any work is done.
    pub fn check(self) -> Result<Self, Status> {
        check_array(self.0, 1)?;
        Ok(self)
    }

    /// Writes one value. Does nothing for NULL.
    pub fn set(self, value: T) {
        if self.check().is_ok() {
            // SAFETY: not NULL and aligned; the rest is the header's promise.
            unsafe { self.0.write(value) }
        }
    }

    /// The array of `len` elements to fill; NULL stands for an empty one. What it holds before is of no account.
    pub fn slice<'a>(self, len: usize) -> Result<&'a mut [T], Status>
    where
        T: Number,
    {
        if len == 0 {
            return Ok(&mut []);
        }
        check_array(self.0, len)?;
        // SAFETY: as in `In::slice`, and nobody else uses the memory meanwhile: the header's promise.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.0, len) })
    }
}

fn check_array<T>(start: *const T, len: usize) -> Result<(), Status> {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    if start.is_null() || !start.is_aligned() || bytes.is_none() {
        return Err(Status::ARGUMENT);
    }
    Ok(())
}

/// A structure of the header that begins with its size.
///
/// # Safety
/// `repr(C)` and `Copy`; begins with `struct_size: u32`; any bytes are a valid value, as they are of numbers, raw
/// pointers and optional function pointers.
pub unsafe trait Sized32: Copy {
    /// The defaults, with the whole size.
    const DEFAULT: Self;
}

/// Declares a structure of the header, with its defaults. The size comes by itself.
macro_rules! sized_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct $name {
            pub struct_size: u32,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        // SAFETY: declared right above, of numbers, pointers and optional function pointers.
        #[allow(unsafe_code)]
        unsafe impl $crate::handle::Sized32 for $name {
            const DEFAULT: Self = Self { struct_size: size_of::<Self>() as u32, $($field: $default,)* };
        }

        #[cfg(test)]
        impl $name {
            /// Names and offsets of the members.
            pub const MEMBERS: &[(&str, usize)] =
                &[("struct_size", 0), $((stringify!($field), core::mem::offset_of!($name, $field)),)*];
        }
    };
}
pub(crate) use sized_struct;

/// Largest size that a structure may claim: far more than any has.
const MAX_STRUCT: usize = 4096;

impl<T: Sized32> Out<T> {
    /// Writes the defaults to a structure that the caller's header says has `size` bytes.
    pub fn init(self, size: usize) -> Result<(), Status> {
        self.check()?;
        if !(size_of::<T>()..=MAX_STRUCT).contains(&size) {
            return Err(Status::STRUCT_SIZE);
        }
        // SAFETY: not NULL; the caller's structure has `size` bytes, at least those of `T`.
        unsafe {
            self.0.cast::<u8>().write_bytes(0, size);
            self.0.write(T::DEFAULT);
            self.0.cast::<u32>().write(size as u32);
        }
        Ok(())
    }

    /// Checks a structure that is about to be filled.
    pub fn check_sized(self) -> Result<Self, Status> {
        self.check()?;
        In(self.0.cast_const()).size()?;
        Ok(self)
    }

    /// Fills a structure that its `init` has made; its size stays.
    pub fn fill(self, value: T) -> Result<(), Status> {
        let size = In(self.0.cast_const()).size()?;
        // SAFETY: the structure has at least the bytes of `T`.
        unsafe {
            self.0.write(value);
            self.0.cast::<u32>().write(size as u32);
        }
        Ok(())
    }
}

impl<T: Sized32> In<T> {
    /// The size that the structure says it has: at least that of the first version, which is the one known here.
    fn size(self) -> Result<usize, Status> {
        check_array(self.0, 1)?;
        // SAFETY: not NULL and aligned; the header's promise: a structure begins with its size.
        let size = unsafe { self.0.cast::<u32>().read() } as usize;
        if (size_of::<T>()..=MAX_STRUCT).contains(&size) { Ok(size) } else { Err(Status::STRUCT_SIZE) }
    }

    /// Copies the structure. Members that are not known here must be 0.
    pub fn read(self) -> Result<T, Status> {
        let size = self.size()?;
        // SAFETY: the structure has `size` bytes, at least those of `T`, and any bytes are a `T`.
        let (value, tail) = unsafe {
            let tail = self.0.cast::<u8>().add(size_of::<T>());
            (self.0.read(), core::slice::from_raw_parts(tail, size - size_of::<T>()))
        };
        if tail.iter().any(|byte| *byte != 0) { Err(Status::STRUCT_SIZE) } else { Ok(value) }
    }
}

/// An object that C holds by pointer: counted, in a block of its own or in the caller's memory.
#[repr(C, align(64))]
pub struct Object<T> {
    /// Uses: one of C, and one of each object that keeps this one.
    uses: AtomicUsize,
    /// The memory of the object and all its arrays, unless the caller keeps it.
    block: Option<Block>,
    value: T,
}

const _: () = assert!(align_of::<Object<u8>>() == ALIGN);

/// One use of an object: a reference that keeps it alive.
pub struct Use<T>(NonNull<Object<T>>);

// SAFETY: a shared, counted reference, like `Arc`.
unsafe impl<T: Send + Sync> Send for Use<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Use<T> {}

/// Memory for an object: its own, or the caller's.
pub enum Memory {
    /// To be taken from the allocator.
    Own,
    /// `len` bytes of the caller.
    Caller(Out<u8>, usize),
}

impl<T> Object<T> {
    /// Bytes of an object with `arrays` bytes of arrays behind it.
    pub fn size(arrays: usize) -> Result<usize, MemError> {
        size_of::<Self>().checked_add(arrays).ok_or(MemError::Overflow)
    }

    /// Places an object in memory, with one use. With it comes the memory of the arrays, which lives as long as the
    /// object.
    pub fn place(memory: Memory, arrays: usize, value: T) -> Result<(Use<T>, &'static mut [u8]), MemError> {
        let needed = Self::size(arrays)?;
        let (block, start) = match memory {
            Memory::Own => {
                let mut block = Block::zeroed(needed)?;
                let start = NonNull::from(block.bytes_mut()).cast::<u8>();
                (Some(block), start)
            }
            Memory::Caller(start, len) => {
                let start = NonNull::new(start.0).filter(|start| start.addr().get() % ALIGN == 0);
                let start = start.ok_or(MemError::Misaligned)?;
                if len < needed {
                    return Err(MemError::TooSmall { needed, got: len });
                }
                (None, start)
            }
        };
        // SAFETY: the block has `needed` bytes from `start` on, ours alone; the arrays begin behind the object, whose
        // size is a multiple of its alignment.
        let arrays = unsafe {
            let behind = start.add(size_of::<Self>());
            behind.write_bytes(0, arrays);
            core::slice::from_raw_parts_mut(behind.as_ptr(), arrays)
        };
        let object = start.cast::<Self>();
        // SAFETY: aligned, as blocks are and the caller's memory was checked to be, and large enough.
        unsafe { object.write(Self { uses: AtomicUsize::new(1), block, value }) };
        Ok((Use(object), arrays))
    }
}

impl<T> Use<T> {
    /// The value. The reference may be kept as long as a use is: the caller sees to it.
    pub fn get<'a>(&self) -> &'a T {
        // SAFETY: a use keeps the object alive; objects are only ever shared.
        &unsafe { self.0.as_ref() }.value
    }

    /// The value of the only use, to be completed.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: as in `get`; with one use, `&mut self` is the only way to the object.
        let object = unsafe { self.0.as_mut() };
        if *object.uses.get_mut() == 1 { Some(&mut object.value) } else { None }
    }

    /// Gives this use to C.
    pub fn give(self) -> Handle<T> {
        let handle = Handle(self.0.as_ptr());
        core::mem::forget(self);
        handle
    }
}

impl<T> Clone for Use<T> {
    fn clone(&self) -> Self {
        // SAFETY: as in `get`. Relaxed: a use is made from a use, which orders it already.
        unsafe { self.0.as_ref() }.uses.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Drop for Use<T> {
    fn drop(&mut self) {
        // SAFETY: as in `get`. Release and Acquire: whatever other users did comes before the end.
        if unsafe { self.0.as_ref() }.uses.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // SAFETY: the last use. The block is taken out first, so that it outlives the object it holds.
        unsafe {
            let block = (*self.0.as_ptr()).block.take();
            self.0.drop_in_place();
            drop(block);
        }
    }
}

/// Pointer to an object, as C holds it.
#[repr(transparent)]
pub struct Handle<T>(*mut Object<T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}

impl<T> Handle<T> {
    /// The NULL pointer.
    #[cfg(test)]
    pub const fn null() -> Self {
        Self(ptr::null_mut())
    }

    /// The object, for the duration of the call.
    pub fn get<'a>(self) -> Result<&'a T, Status> {
        check_array(self.0, 1)?;
        // SAFETY: the header's promise: NULL or an object that is not destroyed.
        unsafe { self.0.as_ref() }.map(|object| &object.value).ok_or(Status::ARGUMENT)
    }

    /// Another use of the object.
    pub fn keep(self) -> Result<Use<T>, Status> {
        check_array(self.0, 1)?;
        let object = NonNull::new(self.0).ok_or(Status::ARGUMENT)?;
        let borrowed = core::mem::ManuallyDrop::new(Use(object));
        Ok(Use::clone(&borrowed))
    }

    /// Takes back the use that was given; the object may end with it. Nothing for NULL.
    pub fn take(self) -> Option<Use<T>> {
        NonNull::new(self.0).map(Use)
    }
}

/// A value that is in one call at a time.
pub struct OneCall<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: `enter` gives the value to one thread at a time.
unsafe impl<T: Send> Sync for OneCall<T> {}

const FREE: u8 = 0;
const IN_CALL: u8 = 1;
const BROKEN: u8 = 2;

impl<T> OneCall<T> {
    /// A value that is in no call.
    pub fn new(value: T) -> Self {
        Self { state: AtomicU8::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Whether a call is going on.
    pub fn in_call(&self) -> bool {
        self.state.load(Ordering::Acquire) == IN_CALL
    }

    /// Runs `call` with the value, unless another call is going on. A call that panics breaks the value for good.
    pub fn enter<R>(&self, call: impl FnOnce(&mut T) -> R) -> Result<R, Status> {
        struct Leave<'a>(&'a AtomicU8, u8);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.store(self.1, Ordering::Release);
            }
        }
        match self.state.compare_exchange(FREE, IN_CALL, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(BROKEN) => return Err(Status::INTERNAL),
            Err(_) => return Err(Status::BUSY),
        }
        let mut leave = Leave(&self.state, BROKEN);
        // SAFETY: the state is ours until `leave` is dropped.
        let result = call(unsafe { &mut *self.value.get() });
        leave.1 = FREE;
        Ok(result)
    }
}

/// A closure on its way through the host's job system, as the argument of a C function.
pub struct Work<'a> {
    work: &'a (dyn Fn(usize, usize) + Sync),
    /// Whether a call has panicked, which C must not see.
    pub panicked: core::sync::atomic::AtomicBool,
}

impl<'a> Work<'a> {
    /// The argument for `work`.
    pub fn new(work: &'a (dyn Fn(usize, usize) + Sync)) -> Self {
        Self { work, panicked: core::sync::atomic::AtomicBool::new(false) }
    }

    /// The pointer that `call` takes.
    pub fn argument(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// What the host calls, from any thread, as long as its `parallel_for` has not returned.
    pub extern "C" fn call(argument: *mut c_void, job: u32, worker: u32) {
        // SAFETY: the header's promise: the argument that came with this function, during that `parallel_for`.
        let work = unsafe { &*argument.cast::<Work<'_>>() };
        let number = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let call = std::panic::AssertUnwindSafe(|| (work.work)(number(job), number(worker)));
        if std::panic::catch_unwind(call).is_err() {
            work.panicked.store(true, Ordering::Release);
        }
    }
}

/// The bytes of a file, for a model that is dropped before the file is.
pub fn keep_bytes(file: &FileBytes) -> ModelBytes<'static> {
    // SAFETY: the bytes stand in memory that does not move with `file`; the one caller keeps `file` behind the model in
    // the same object.
    unsafe { core::mem::transmute::<ModelBytes<'_>, ModelBytes<'static>>(file.bytes()) }
}

/// Maps a file: [`FileBytes::map`].
pub fn map(path: &Path) -> Result<FileBytes, FormatError> {
    // SAFETY: the header's promise at LOCUTOR_MODEL_MAP is the contract of `FileBytes::map`.
    unsafe { FileBytes::map(path) }
}

/// Maps an extent of a file: [`FileBytes::map_file`].
pub fn map_file(file: &File, offset: u64, len: Option<u64>) -> Result<FileBytes, FormatError> {
    // SAFETY: as in `map`.
    unsafe { FileBytes::map_file(file, offset, len) }
}

/// An open file of the host's, used for the duration of a call.
#[cfg(unix)]
pub fn file(descriptor: i32) -> Result<File, std::io::Error> {
    use std::os::fd::BorrowedFd;
    if descriptor < 0 {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: not -1; the header's promise: the descriptor is open for the duration of the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    sized_struct! {
        Sample {
            number: u32 = 7,
            pointer: In<u8> = In::null(),
        }
    }

    /// A structure of a newer header.
    #[repr(C)]
    struct Newer {
        known: Sample,
        tail: [u8; 16],
    }

    #[test]
    fn structures_of_other_versions() {
        assert_eq!(Sample::MEMBERS[..2], [("struct_size", 0), ("number", 4)]);
        let mut newer = Newer { known: Sample { number: 1, ..Sample::DEFAULT }, tail: [9; 16] };
        let newer: *mut Newer = &raw mut newer;
        let (out, known) = (Out(newer.cast::<Sample>()), In(newer.cast_const().cast::<Sample>()));
        out.init(size_of::<Newer>()).unwrap();
        let value = known.read().unwrap();
        assert_eq!((value.number, value.struct_size as usize), (7, size_of::<Newer>()));
        out.fill(Sample { number: 3, ..value }).unwrap();
        // SAFETY: the structure above, which nothing else borrows.
        unsafe {
            assert_eq!((*newer).known.number, 3);
            assert_eq!((*newer).known.struct_size as usize, size_of::<Newer>());
            assert_eq!((*newer).tail, [0; 16]);
            (*newer).tail[15] = 1;
        }
        assert_eq!(known.read().err(), Some(Status::STRUCT_SIZE));
        assert_eq!(out.init(size_of::<Sample>() - 1).err(), Some(Status::STRUCT_SIZE));
        assert_eq!(Out::<Sample>::null().init(100).err(), Some(Status::ARGUMENT));
        assert_eq!(In::<Sample>::null().read().err(), Some(Status::ARGUMENT));
        for size in [0, 4, u32::MAX] {
            let mut old = Sample { struct_size: size, ..Sample::DEFAULT };
            assert_eq!(In(&raw const old).read().err(), Some(Status::STRUCT_SIZE));
            assert_eq!(Out(&raw mut old).fill(Sample::DEFAULT).err(), Some(Status::STRUCT_SIZE));
        }
    }

    #[test]
    fn arrays_and_texts() {
        let numbers = [1u32, 2, 3];
        assert_eq!(In::to(&numbers).slice(3), Ok(&numbers[..]));
        assert_eq!(In::<u32>::null().slice(0), Ok(&[][..]));
        assert_eq!(In::<u32>::null().slice(1), Err(Status::ARGUMENT));
        assert_eq!(In::to(&numbers).slice(usize::MAX / 2), Err(Status::ARGUMENT));
        let odd = In(numbers.as_ptr().wrapping_byte_add(1));
        assert_eq!(odd.slice(1), Err(Status::ARGUMENT));
        assert_eq!(In::to(b"ab\xc3").text(2), Ok("ab"));
        assert_eq!(In::to(b"ab\xc3").text(3), Err(Status::UTF8));
        assert_eq!(In::to(b"name\0").name(), Ok(c"name"));
        assert_eq!(In::<u8>::null().name(), Err(Status::ARGUMENT));
        let mut values = [0u32; 2];
        let out = Out::to(&mut values);
        out.slice(2).unwrap().fill(5);
        out.set(6);
        Out::<u32>::null().set(1);
        assert_eq!(values, [6, 5]);
        assert_eq!(Out::<u32>::null().slice(1), Err(Status::ARGUMENT));
    }

    /// Counts its end.
    struct Ends(Arc<AtomicU32>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn objects_end_with_their_last_use() {
        let ends = Arc::new(AtomicU32::new(0));
        let mut memory = engine::mem::aligned::Aligned([0xA5u8; 1024]);
        let start = memory.0.as_mut_ptr();
        let needed = Object::<Ends>::size(100).unwrap();
        for caller in [false, true] {
            let place = || if caller { Memory::Caller(Out(start), needed) } else { Memory::Own };
            let (mut object, arrays) = Object::place(place(), 100, Ends(ends.clone())).unwrap();
            assert!(arrays.len() == 100 && arrays.iter().all(|byte| *byte == 0));
            assert_eq!(arrays.as_ptr().addr() % ALIGN, 0);
            arrays.fill(7);
            assert!(object.get_mut().is_some());
            let second = object.clone();
            assert!(object.get_mut().is_none(), "of two users none has it alone");
            drop(second);
            let handle = object.give();
            let kept = handle.keep().unwrap();
            drop(handle.take());
            assert_eq!(ends.load(Ordering::Relaxed), 0);
            assert!(kept.clone().get().0.load(Ordering::Relaxed) == 0);
            drop(kept);
            assert_eq!(ends.swap(0, Ordering::Relaxed), 1);
        }
        assert!(Handle::<Ends>::null().take().is_none());
        assert_eq!(Handle::<Ends>::null().get().err(), Some(Status::ARGUMENT));
        let small = Memory::Caller(Out(start), needed - 1);
        assert!(matches!(Object::place(small, 100, Ends(ends.clone())), Err(MemError::TooSmall { .. })));
        let odd = Memory::Caller(Out(start.wrapping_add(8)), needed);
        assert!(matches!(Object::place(odd, 100, Ends(ends.clone())), Err(MemError::Misaligned)));
        assert!(matches!(Object::place(Memory::Own, usize::MAX, Ends(ends)), Err(MemError::Overflow)));
    }

    #[test]
    fn one_call_at_a_time() {
        let value = OneCall::new(1);
        let inner = value.enter(|number| {
            *number += 1;
            assert!(value.in_call());
            value.enter(|_| ())
        });
        assert_eq!(inner, Ok(Err(Status::BUSY)));
        assert_eq!(value.enter(|number| *number), Ok(2));
        let total = OneCall::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        while total.enter(|total| *total += 1).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(total.enter(|total| *total), Ok(300));
        let panic = std::panic::AssertUnwindSafe(|| value.enter(|_| std::panic::resume_unwind(Box::new(()))));
        assert!(std::panic::catch_unwind(panic).is_err());
        assert_eq!(value.enter(|_| ()), Err(Status::INTERNAL));
    }

    #[test]
    fn work_runs_on_threads_of_the_host() {
        let calls = AtomicU32::new(0);
        let add = |job: usize, worker: usize| {
            assert_eq!((job, worker), (7, 2));
            if calls.fetch_add(1, Ordering::Relaxed) == 3 {
                std::panic::resume_unwind(Box::new(()));
            }
        };
        let work = Work::new(&add);
        let argument = User(work.argument());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    let argument = argument;
                    Work::call(argument.0, 7, 2);
                });
            }
        });
        assert!(!work.panicked.load(Ordering::Acquire));
        Work::call(work.argument(), 7, 2);
        assert!(work.panicked.load(Ordering::Acquire));
        assert_eq!(calls.into_inner(), 4);
    }
}

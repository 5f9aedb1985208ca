//! Models.

use crate::failure::{ErrorInfo, Failure, guard, guard_plain};
use crate::handle::{self, Handle, In, Memory, Object, Out, Use, User, keep_bytes, sized_struct};
use crate::status::{Status, export};
use core::ffi::c_char;
use engine::format::{FileBytes, FormatError, HeaderBytes, ModelBytes, Operation, ReadError};
use engine::model::{Model, ModelHeader};
use std::fs::File;
use std::path::Path;

/// `locutor_model`.
pub struct ModelObject {
    /// There from the moment that C gets the object, unless it was opened for its header alone.
    model: Option<Model<'static>>,
    /// There if it was opened for its header alone.
    header: Option<ModelHeader<'static>>,
    // Behind the model, which borrows from it.
    file: Option<FileBytes>,
}

impl ModelObject {
    /// The model.
    pub fn model(&self) -> Result<&Model<'static>, Failure> {
        let no_weights = Failure::Param("the model was opened for its header alone");
        self.model.as_ref().ok_or(no_weights)
    }

    /// Descriptor and tokenizer.
    pub fn header(&self) -> Result<&ModelHeader<'static>, Status> {
        let header = self.model.as_ref().map(Model::header).or(self.header.as_ref());
        header.ok_or(Status::INTERNAL)
    }
}

/// `locutor_read_fn`.
type ReadFn = extern "C" fn(user: User, offset: u64, destination: Out<u8>, len: usize) -> i32;

pub const MAP: u32 = 1;
pub const FD: u32 = 2;
pub const HEADER: u32 = 4;

sized_struct! {
    /// `locutor_model_params`.
    ModelParams {
        flags: u32 = 0,
        path: In<c_char> = In::null(),
        data: In<u8> = In::null(),
        data_len: u64 = 0,
        read: Option<ReadFn> = None,
        read_user: User = User(core::ptr::null_mut()),
        read_len: u64 = 0,
        offset: u64 = 0,
        len: u64 = 0,
        fd: i32 = -1,
        reserved: u32 = 0,
    }
}

impl ModelParams {
    fn check(&self) -> Result<(), Failure> {
        let sources = [!self.path.is_null(), !self.data.is_null(), self.read.is_some(), self.flags & FD != 0];
        let in_file = !self.path.is_null() || self.flags & FD != 0;
        if sources.iter().filter(|given| **given).count() != 1 {
            Err(Failure::Param("exactly one of path, data, read and LOCUTOR_MODEL_FD is needed"))
        } else if self.flags & !(MAP | FD | HEADER) != 0 || self.reserved != 0 {
            Err(Failure::Param("flags or reserved: unknown bits"))
        } else if self.flags & MAP != 0 && !in_file {
            Err(Failure::Param("LOCUTOR_MODEL_MAP asks for a path or a descriptor"))
        } else if self.flags & HEADER != 0 && self.flags & MAP != 0 {
            Err(Failure::Param("LOCUTOR_MODEL_HEADER excludes LOCUTOR_MODEL_MAP"))
        } else if self.flags & HEADER != 0 && !self.data.is_null() {
            Err(Failure::Param("LOCUTOR_MODEL_HEADER is for path, read and LOCUTOR_MODEL_FD"))
        } else if (self.offset != 0 || self.len != 0) && !in_file {
            Err(Failure::Param("offset and len ask for a path or a descriptor"))
        } else {
            Ok(())
        }
    }

    /// The caller's bytes.
    fn bytes(&self) -> Result<ModelBytes<'static>, Failure> {
        if self.data.is_null() {
            return Err(Failure::Param("only `data` needs no memory of its own"));
        }
        let len = usize::try_from(self.data_len).map_err(|_| Status::ARGUMENT)?;
        Ok(ModelBytes::new(self.data.slice(len)?))
    }

    /// The host's reader.
    fn reader(&self, read: ReadFn) -> impl FnMut(u64, &mut [u8]) -> Result<(), ReadError> {
        let user = self.read_user;
        move |offset, destination| match read(user, offset, Out::to(destination), destination.len()) {
            0 => Ok(()),
            code => Err(ReadError::Host(code)),
        }
    }

    /// The front of the file alone.
    fn front(&self) -> Result<HeaderBytes, Failure> {
        if let Some(read) = self.read {
            return Ok(HeaderBytes::from_reader(self.reader(read), self.read_len)?);
        }
        let file = if self.flags & FD != 0 { descriptor(self.fd)? } else { open(path(self.path)?)? };
        Ok(HeaderBytes::from_file(&file, self.offset, Some(self.len).filter(|len| *len > 0))?)
    }

    /// The file's bytes in memory of their own, or mapped.
    fn file(&self) -> Result<FileBytes, Failure> {
        if let Some(read) = self.read {
            return Ok(FileBytes::from_reader(self.reader(read), self.read_len)?);
        }
        let (map, len) = (self.flags & MAP != 0, Some(self.len).filter(|len| *len > 0));
        if self.flags & FD != 0 {
            let file = descriptor(self.fd)?;
            return Ok(if map {
                handle::map_file(&file, self.offset, len)?
            } else {
                FileBytes::from_file(&file, self.offset, len)?
            });
        }
        let path = path(self.path)?;
        Ok(match (map, self.offset == 0 && len.is_none()) {
            (false, true) => FileBytes::open(path)?,
            (true, true) => handle::map(path)?,
            (false, false) => FileBytes::from_file(&open(path)?, self.offset, len)?,
            (true, false) => handle::map_file(&open(path)?, self.offset, len)?,
        })
    }
}

fn path<'a>(path: In<c_char>) -> Result<&'a Path, Failure> {
    let name = path.name()?;
    #[cfg(unix)]
    let path = {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(name.to_bytes())
    };
    #[cfg(not(unix))]
    let path = name.to_str().map_err(|_| Status::UTF8)?;
    Ok(Path::new(path))
}

fn io_error(cause: ReadError) -> FormatError {
    FormatError::Io { operation: Operation::Open, offset: 0, cause }
}

/// Opens a regular file. It is asked for before it is opened, as opening a pipe would block.
fn open(path: &Path) -> Result<File, FormatError> {
    let os = |error: std::io::Error| io_error(ReadError::Os(error.kind()));
    if !std::fs::metadata(path).map_err(os)?.is_file() {
        return Err(io_error(ReadError::NotAFile));
    }
    File::open(path).map_err(os)
}

#[cfg(unix)]
fn descriptor(fd: i32) -> Result<File, Failure> {
    handle::file(fd).map_err(|error| io_error(ReadError::Os(error.kind())).into())
}

#[cfg(not(unix))]
fn descriptor(_fd: i32) -> Result<File, Failure> {
    Err(Failure::Param("LOCUTOR_MODEL_FD is not for this system"))
}

/// Builds a model in its object.
fn build(
    memory: Memory,
    bytes: ModelBytes<'static>,
    file: Option<FileBytes>,
) -> Result<Use<ModelObject>, Failure> {
    let (mut object, tables) =
        Object::place(memory, Model::size(&bytes)?, ModelObject { model: None, header: None, file })?;
    object.get_mut().ok_or(Status::INTERNAL)?.model = Some(Model::new(bytes, tables)?);
    Ok(object)
}

pub const HAS_TOKENIZER: u32 = 1;
pub const ADDS_BOS: u32 = 2;
pub const IS_MAPPED: u32 = 4;

/// `LOCUTOR_NO_TOKEN`.
pub const NO_TOKEN: u32 = u32::MAX;

sized_struct! {
    /// `locutor_model_info`.
    ModelInfo {
        flags: u32 = 0,
        vocab: u32 = 0,
        context: u32 = 0,
        layers: u32 = 0,
        width: u32 = 0,
        bos: u32 = NO_TOKEN,
        eos: u32 = NO_TOKEN,
        file_bytes: u64 = 0,
        table_bytes: u64 = 0,
        architecture: In<u8> = In::null(),
        architecture_len: u64 = 0,
        name: In<u8> = In::null(),
        name_len: u64 = 0,
        chat_template: In<u8> = In::null(),
        chat_template_len: u64 = 0,
    }
}

/// Numbers of a model fit 32 bits; what does not is shown as the most that does.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn info(object: &ModelObject) -> Result<ModelInfo, Failure> {
    let model = object.header()?;
    let (spec, tokenizer) = (model.spec(), model.tokenizer());
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let ids = tokenizer.map(|tokenizer| tokenizer.ids()).unwrap_or_default();
    let architecture = model.file().str("general.architecture").ok().flatten().unwrap_or_default();
    let name = model.file().str("general.name").ok().flatten().unwrap_or_default();
    let template = tokenizer.and_then(|tokenizer| tokenizer.chat_template());
    Ok(ModelInfo {
        struct_size: 0,
        flags: flag(tokenizer.is_some(), HAS_TOKENIZER)
            | flag(tokenizer.is_some_and(|t| t.add_bos() && ids.bos.is_some()), ADDS_BOS)
            | flag(object.file.as_ref().is_some_and(FileBytes::is_mapped), IS_MAPPED),
        vocab: short(spec.vocab),
        context: short(spec.context),
        layers: short(spec.layers),
        width: short(spec.embd),
        bos: ids.bos.unwrap_or(NO_TOKEN),
        eos: ids.eos.unwrap_or(NO_TOKEN),
        file_bytes: model.file().file_len(),
        table_bytes: object.model.as_ref().map_or(0, Model::memory_bytes) as u64,
        architecture: In::to(architecture.as_bytes()),
        architecture_len: architecture.len() as u64,
        name: In::to(name.as_bytes()),
        name_len: name.len() as u64,
        chat_template: template.map_or(In::null(), |template| In::to(template.as_bytes())),
        chat_template_len: template.map_or(0, str::len) as u64,
    })
}

export! {
    fn locutor_model_params_init(params: Out<ModelParams>, size: usize) -> i32 {
        guard_plain(|| Ok(params.init(size)?))
    }

    fn locutor_model_create(
        params: In<ModelParams>,
        model: Out<Handle<ModelObject>>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let (params, model) = (params.read()?, model.check()?);
            params.check()?;
            if params.flags & HEADER != 0 {
                let header = Some(ModelHeader::from_header_bytes(params.front()?)?);
                let object = ModelObject { model: None, header, file: None };
                model.set(Object::place(Memory::Own, 0, object)?.0.give());
                return Ok(());
            }
            let (bytes, file) = if params.data.is_null() {
                let file = params.file()?;
                (keep_bytes(&file), Some(file))
            } else {
                (params.bytes()?, None)
            };
            model.set(build(Memory::Own, bytes, file)?.give());
            Ok(())
        })
    }

    fn locutor_model_size(params: In<ModelParams>, bytes: Out<usize>, error: Out<ErrorInfo>) -> i32 {
        guard(error, || {
            let (params, out) = (params.read()?, bytes.check()?);
            params.check()?;
            out.set(Object::<ModelObject>::size(Model::size(&params.bytes()?)?)?);
            Ok(())
        })
    }

    fn locutor_model_init(
        params: In<ModelParams>,
        memory: Out<u8>,
        len: usize,
        model: Out<Handle<ModelObject>>,
        error: Out<ErrorInfo>,
    ) -> i32 {
        guard(error, || {
            let (params, model, memory) = (params.read()?, model.check()?, memory.check()?);
            params.check()?;
            model.set(build(Memory::Caller(memory, len), params.bytes()?, None)?.give());
            Ok(())
        })
    }

    fn locutor_model_destroy(model: Handle<ModelObject>) {
        guard_plain(|| {
            drop(model.take());
            Ok(())
        });
    }

    fn locutor_model_info_init(info: Out<ModelInfo>, size: usize) -> i32 {
        guard_plain(|| Ok(info.init(size)?))
    }

    fn locutor_model_get_info(model: Handle<ModelObject>, out: Out<ModelInfo>) -> i32 {
        guard_plain(|| Ok(out.check_sized()?.fill(info(model.get()?)?)?))
    }
}

//! Where each role's tensor is: one table, filled and checked once.

use super::ModelError;
use super::names::{Entry, Need, REGISTRY, Role, Shape};
use super::spec::ModelSpec;
use crate::format::gguf::{Counts, Gguf, TensorEntry};
use crate::mem::aligned::RawBytes;
use crate::mem::{Arena, MemError, Plan, Slot};
use crate::num::Overflow;
use crate::tensor::{DType, Matrix, dequant};
use bytemuck::{Pod, Zeroable};

/// A tensor's place. `kind` 0: not there; 1: a matrix at byte `offset` of the file; 2: a vector at value `offset` of
/// the table of vectors.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Place {
    offset: u64,
    rows: u64,
    cols: u64,
    kind: u32,
    dtype: u32,
}

/// Values of a vector in the table: padded, so that each begins at a cache line.
const VECTOR_UNIT: usize = 16;

/// The slots of a model's weight tables.
#[derive(Debug, Clone, Copy)]
pub struct WeightSlots {
    places: Slot<Place>,
    vectors: Slot<f32>,
}

/// All weights of a model: matrices stay where the file has them, vectors (norms, biases) are copied as `f32`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    data: RawBytes<'a>,
    places: &'a [Place],
    vectors: &'a [f32],
}

impl<'a> Weights<'a> {
    /// Plans the tables of a file: a place for every role of every layer, and all its vectors.
    pub fn plan(counts: &Counts, plan: &mut Plan) -> Result<WeightSlots, MemError> {
        // Every layer has at least three matrices: a file that claims more layers is refused when one is missing, and
        // until then gets no more memory than its tensors can need.
        let layers = usize::try_from(counts.blocks).unwrap_or(usize::MAX).min(counts.tensors / 3);
        let places = Role::PER_LAYER.checked_mul(layers).and_then(|n| n.checked_add(Role::GLOBALS));
        let places = plan.array(places.ok_or(MemError::Overflow)?)?;
        Ok(WeightSlots { places, vectors: plan.array(counts.vector_values)? })
    }

    /// Finds, checks and places every tensor of the registry.
    pub fn load(
        spec: &ModelSpec,
        file: &Gguf<'a>,
        data: RawBytes<'a>,
        arena: &mut Arena<'a>,
        slots: &WeightSlots,
    ) -> Result<Self, ModelError> {
        let places = arena.carve(slots.places)?;
        let vectors = arena.carve(slots.vectors)?;
        let mut used = 0;
        for entry in &REGISTRY {
            let copies = if entry.role.is_per_layer() { spec.layers } else { 1 };
            for layer in 0..copies {
                let place = find(spec, file, data, entry, layer, vectors, &mut used)?;
                if let Some(slot) = places.get_mut(index(entry.role, layer)) {
                    *slot = place;
                }
            }
        }
        Ok(Self { data, places, vectors })
    }

    /// The matrix of a role; one without rows when the model has none.
    pub fn matrix(&self, role: Role, layer: usize) -> Matrix<'a> {
        let place = self.places.get(index(role, layer)).copied().unwrap_or_default();
        let found = || {
            let dtype = DType::ALL.get(place.dtype as usize).copied()?;
            let (rows, cols) = (usize::try_from(place.rows).ok()?, usize::try_from(place.cols).ok()?);
            let len = dtype.row_bytes(cols)?.checked_mul(rows)?;
            Matrix::new(dtype, rows, cols, self.data.sub(usize::try_from(place.offset).ok()?, len)?)
        };
        (place.kind == 1).then(found).flatten().unwrap_or_else(Matrix::empty)
    }

    /// The vector of a role; an empty one when the model has none.
    pub fn vector(&self, role: Role, layer: usize) -> &'a [f32] {
        let place = self.places.get(index(role, layer)).copied().unwrap_or_default();
        if place.kind != 2 {
            return &[];
        }
        let (start, len) = (place.offset as usize, place.cols as usize);
        self.vectors.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// The bytes of the whole file.
    pub(super) fn data(&self) -> RawBytes<'a> {
        self.data
    }

    /// The matrices that a pass reads from the first to the last row, in no promised order: those of all layers and the
    /// head, which may be the embedding.
    pub fn of_a_pass<'s>(&'s self, spec: &ModelSpec) -> impl Iterator<Item = Matrix<'a>> + use<'s, 'a> {
        let head = if spec.tied { Role::TokenEmbd } else { Role::Output };
        let per_layer = REGISTRY.iter().map(|entry| entry.role).filter(|role| role.is_per_layer());
        let layers = (0..spec.layers).flat_map(move |layer| per_layer.clone().map(move |role| (role, layer)));
        let all = layers.chain([(head, 0)]).map(|(role, layer)| self.matrix(role, layer));
        all.filter(|matrix| matrix.rows() > 0)
    }
}

fn index(role: Role, layer: usize) -> usize {
    match role.is_per_layer() {
        true => layer.saturating_mul(Role::PER_LAYER).saturating_add(role as usize),
        false => role as usize,
    }
}

/// The place of one tensor; vectors are copied behind `used`.
fn find(
    spec: &ModelSpec,
    file: &Gguf<'_>,
    data: RawBytes<'_>,
    entry: &Entry,
    layer: usize,
    vectors: &mut [f32],
    used: &mut usize,
) -> Result<Place, ModelError> {
    let name = entry.name(layer);
    let stored = core::str::from_utf8(name.as_bytes()).ok().and_then(|name| file.tensor(name));
    let found = match (stored, entry.role.need(spec)) {
        (Some(found), Need::Required) => found,
        (None, Need::Required) => return Err(ModelError::MissingTensor { name }),
        (Some(found), Need::Refused) => {
            return Err(ModelError::UnexpectedTensor { name, offset: found.name_offset() });
        }
        _ => return Ok(Place::default()),
    };
    let (rows, cols) = match entry.shape {
        Shape::Matrix(rows, cols) => (rows.of(spec), cols.of(spec)),
        Shape::Vector(len) => (1, len.of(spec)),
    };
    let dims = found.dims;
    let (expected, got) = ([cols as u64, rows as u64], [dims[0], dims[1]]);
    if got != expected || dims[2] != 1 || dims[3] != 1 {
        return Err(ModelError::Shape { name, expected, got, offset: found.dims_offset() });
    }
    let dtype = found.dtype();
    let bytes = matrix_bytes(found, data)?;
    if let Shape::Matrix(..) = entry.shape {
        let place = Place {
            offset: found.offset,
            rows: rows as u64,
            cols: cols as u64,
            kind: 1,
            dtype: dtype.index() as u32,
        };
        return Ok(place);
    }
    if !dtype.is_float() {
        return Err(ModelError::TensorType { name, dtype, offset: found.dtype_offset() });
    }
    let start = *used;
    let target = vectors.get_mut(start..).and_then(|rest| rest.get_mut(..cols)).ok_or(MemError::Overflow)?;
    dequant::dequantize_row(dtype, bytes, target);
    if let Some(index) = target.iter().position(|value| !value.is_finite()) {
        let skipped = dtype.row_bytes(index).unwrap_or(0) as u64;
        return Err(ModelError::NonFinite { name, index, offset: found.offset.saturating_add(skipped) });
    }
    *used = start + cols.next_multiple_of(VECTOR_UNIT);
    Ok(Place { offset: start as u64, rows: 1, cols: cols as u64, kind: 2, dtype: 0 })
}

fn matrix_bytes<'a>(entry: &TensorEntry, data: RawBytes<'a>) -> Result<RawBytes<'a>, ModelError> {
    let (offset, len) = (usize::try_from(entry.offset), usize::try_from(entry.bytes));
    match (offset, len) {
        (Ok(offset), Ok(len)) => data.sub(offset, len).ok_or(ModelError::Overflow(Overflow)),
        _ => Err(ModelError::Overflow(Overflow)),
    }
}

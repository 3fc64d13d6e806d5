//! The tensor that a request brings, whose every size is its sender's claim.

use bytes::{Buf, Bytes};
use chorale_proto::inference::{InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor};

use super::{
    quoted,
    spec::{LENGTH_BYTES, SHARED_MEMORY, TensorSpec},
};
use crate::failure::Failure;

/// A shape of more dimensions is not repeated in an error.
const MAX_DIMENSIONS: usize = 8;

/// How many rows, which is the first dimension, a request may have.
#[derive(Debug, Clone, Copy)]
pub struct RowLimit {
    /// What the limit is called in errors.
    pub name: &'static str,
    /// Rows at most.
    pub rows: usize,
}

/// Takes the one input of `request`, which must be of bytes and as `expected` says: its elements, row-major.
///
/// # Errors
/// `REQUEST_INVALID` says what was expected and what came, `LIMIT_EXCEEDED` that there are more rows than `limit`.
pub fn take_uint8(request: &mut ModelInferRequest, expected: &TensorSpec, limit: RowLimit) -> Result<Bytes, Failure> {
    let (elements, source) = take(request, expected, limit)?;
    let bytes = match source {
        Source::Raw(bytes) => bytes,
        Source::Typed(contents) => {
            check_count(expected, elements, contents.uint_contents.len())?;
            let byte = |(index, &element): (usize, &u32)| {
                u8::try_from(element).map_err(|_| {
                    let message = format!("expected elements from 0 to 255, found {element} at {index}");
                    Failure::invalid("inputs.contents.uint_contents", message)
                })
            };
            contents.uint_contents.iter().enumerate().map(byte).collect::<Result<_, _>>()?
        }
    };
    check_count(expected, elements, bytes.len())?;
    Ok(bytes)
}

/// Takes the one input of `request`, which must be `BYTES` and as `expected` says: its elements, row-major.
///
/// # Errors
/// As [`take_uint8`].
pub fn take_texts(
    request: &mut ModelInferRequest,
    expected: &TensorSpec,
    limit: RowLimit,
) -> Result<Vec<Bytes>, Failure> {
    let (elements, source) = take(request, expected, limit)?;
    let texts = match source {
        Source::Raw(bytes) => split_texts(bytes, elements)?,
        Source::Typed(contents) => contents.bytes_contents,
    };
    check_count(expected, elements, texts.len())?;
    Ok(texts)
}

/// Where the elements of an input are.
enum Source {
    Raw(Bytes),
    Typed(InferTensorContents),
}

/// How many elements the input says that it has, and where they are.
fn take(request: &mut ModelInferRequest, expected: &TensorSpec, limit: RowLimit) -> Result<(usize, Source), Failure> {
    let name = expected.name;
    let raw = std::mem::take(&mut request.raw_input_contents);
    let mut inputs = std::mem::take(&mut request.inputs);
    let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
        let message = format!("expected one input, `{name}`, found another number of them");
        return Err(Failure::invalid("inputs", message));
    };
    let InferInputTensor { name: found, datatype, shape, parameters, contents } = input;
    if found != name {
        return Err(Failure::invalid("inputs.name", format!("expected the input `{name}`, found {}", quoted(&found))));
    }
    if datatype != expected.datatype.name() {
        let message = format!("expected `{name}` of type {}, found {}", expected.datatype.name(), quoted(&datatype));
        return Err(Failure::invalid("inputs.datatype", message));
    }
    if parameters.contains_key(SHARED_MEMORY) {
        let message = format!("expected the elements of `{name}` in the request: no memory is shared");
        return Err(Failure::invalid("inputs.parameters", message));
    }
    let elements = count_elements(expected, &shape, limit)?;
    let mut raw = raw.into_iter();
    let source = match (raw.next(), contents) {
        (Some(bytes), None) => Source::Raw(bytes),
        (None, Some(contents)) => Source::Typed(only_field(expected, contents)?),
        (Some(_), Some(_)) => {
            let message = "expected the elements either in `raw_input_contents` or in `contents`, found both";
            return Err(Failure::invalid("raw_input_contents", message));
        }
        (None, None) => {
            let message = "expected the elements in `raw_input_contents` or in `contents`, found neither";
            return Err(Failure::invalid("raw_input_contents", message));
        }
    };
    if raw.next().is_some() {
        let message = "expected one entry for each input, one, found more";
        return Err(Failure::invalid("raw_input_contents", message));
    }
    Ok((elements, source))
}

/// The number of elements in a tensor of this `shape`, which must be one that is `expected`.
fn count_elements(expected: &TensorSpec, shape: &[i64], limit: RowLimit) -> Result<usize, Failure> {
    let wrong = || {
        let (name, expected) = (expected.name, &expected.shape);
        let found = match shape.len() {
            0..=MAX_DIMENSIONS => format!("{shape:?}"),
            dimensions => format!("{dimensions} dimensions"),
        };
        let message = format!("expected `{name}` of shape {expected:?}, -1 being any number from 1, found {found}");
        Failure::invalid("inputs.shape", message)
    };
    let fits = |(&expected, &found): (&i64, &i64)| if expected < 0 { found > 0 } else { found == expected };
    if shape.len() != expected.shape.len() || !expected.shape.iter().zip(shape).all(fits) {
        return Err(wrong());
    }
    let rows = shape.first().and_then(|&rows| usize::try_from(rows).ok()).ok_or_else(wrong)?;
    if rows > limit.rows {
        let message = format!("expected at most {} rows of `{}`, found {rows}", limit.rows, expected.name);
        return Err(Failure::limit(limit.name, limit.rows, message));
    }
    let product = |product: usize, &size: &i64| product.checked_mul(usize::try_from(size).ok()?);
    shape.iter().try_fold(1, product).ok_or_else(wrong)
}

/// The contents, if all of them are in the field for the type that is expected.
fn only_field(expected: &TensorSpec, contents: InferTensorContents) -> Result<InferTensorContents, Failure> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = &contents;
    let lengths = [
        ("bool_contents", bool_contents.len()),
        ("int_contents", int_contents.len()),
        ("int64_contents", int64_contents.len()),
        ("uint_contents", uint_contents.len()),
        ("uint64_contents", uint64_contents.len()),
        ("fp32_contents", fp32_contents.len()),
        ("fp64_contents", fp64_contents.len()),
        ("bytes_contents", bytes_contents.len()),
    ];
    let field = expected.datatype.field();
    match lengths.into_iter().find(|&(name, length)| name != field && length > 0) {
        None => Ok(contents),
        Some((found, _)) => {
            let message = format!("expected the elements of `{}` in `{field}`, found some in `{found}`", expected.name);
            Err(Failure::invalid(format!("inputs.contents.{found}"), message))
        }
    }
}

fn check_count(expected: &TensorSpec, elements: usize, found: usize) -> Result<(), Failure> {
    if elements == found {
        return Ok(());
    }
    let message = format!("expected {elements} elements of `{}`, as its shape says, found {found}", expected.name);
    Err(Failure::invalid("inputs.contents", message))
}

/// The elements of `BYTES`, each after its length. Nothing is copied.
fn split_texts(mut bytes: Bytes, elements: usize) -> Result<Vec<Bytes>, Failure> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let wrong = |found: String| {
            let message =
                format!("expected element {} after its length of {LENGTH_BYTES} bytes, found {found}", texts.len());
            Failure::invalid("raw_input_contents", message)
        };
        if texts.len() == elements {
            let message = format!("expected {elements} elements, as the shape says, found {} more bytes", bytes.len());
            return Err(Failure::invalid("raw_input_contents", message));
        }
        let length = bytes.try_get_u32_le().map_err(|_| wrong(format!("{} bytes", bytes.len())))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > bytes.len() {
            return Err(wrong(format!("the length {length} before {} bytes", bytes.len())));
        }
        texts.push(bytes.split_to(length));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{failure::Reason, open_inference::Datatype};

    const LIMIT: RowLimit = RowLimit { name: "max_rows", rows: 4 };

    fn cells() -> TensorSpec {
        TensorSpec { name: "cells", datatype: Datatype::Uint8, shape: vec![-1, 2, 3] }
    }

    fn files() -> TensorSpec {
        TensorSpec { name: "files", datatype: Datatype::Bytes, shape: vec![-1] }
    }

    fn request(spec: &TensorSpec, shape: &[i64], raw: Option<&[u8]>) -> ModelInferRequest {
        let input = InferInputTensor {
            name: spec.name.to_owned(),
            datatype: spec.datatype.name().to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        };
        let raw_input_contents = raw.map(Bytes::copy_from_slice).into_iter().collect();
        ModelInferRequest { inputs: vec![input], raw_input_contents, ..ModelInferRequest::default() }
    }

    fn typed(spec: &TensorSpec, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
        let mut request = request(spec, shape, None);
        request.inputs[0].contents = Some(contents);
        request
    }

    /// The field that is wrong.
    fn field(mut request: ModelInferRequest, spec: &TensorSpec) -> String {
        let failure = match spec.datatype {
            Datatype::Bytes => take_texts(&mut request, spec, LIMIT).unwrap_err(),
            _ => take_uint8(&mut request, spec, LIMIT).unwrap_err(),
        };
        assert_eq!(failure.reason, Reason::RequestInvalid, "{failure}");
        failure.field.unwrap()
    }

    #[test]
    fn raw_and_typed_elements_are_the_same() {
        let bytes: Vec<u8> = (0..12).map(|cell| cell * 20).collect();
        let uint_contents = bytes.iter().copied().map(u32::from).collect();
        let raw = take_uint8(&mut request(&cells(), &[2, 2, 3], Some(&bytes)), &cells(), LIMIT).unwrap();
        let contents = InferTensorContents { uint_contents, ..InferTensorContents::default() };
        let typed_bytes = take_uint8(&mut typed(&cells(), &[2, 2, 3], contents), &cells(), LIMIT).unwrap();
        assert_eq!((raw.as_ref(), typed_bytes.as_ref()), (bytes.as_slice(), bytes.as_slice()));

        let raw = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c";
        let texts = take_texts(&mut request(&files(), &[3], Some(raw)), &files(), LIMIT).unwrap();
        assert_eq!(texts, ["ab", "", "c"]);
        let contents = InferTensorContents { bytes_contents: texts.clone(), ..InferTensorContents::default() };
        assert_eq!(take_texts(&mut typed(&files(), &[3], contents), &files(), LIMIT).unwrap(), texts);
    }

    #[test]
    fn what_is_not_as_the_model_has_it_is_named() {
        let raw = |shape: &[i64], length| field(request(&cells(), shape, Some(&vec![0; length])), &cells());
        for shape in [&[][..], &[1], &[2, 3], &[1, 3, 2], &[0, 2, 3], &[-1, 2, 3], &[1, 2, 3, 1], &[i64::MIN, 2, 3]] {
            assert_eq!(raw(shape, 6), "inputs.shape", "{shape:?}");
        }
        for length in [0, 5, 7, 12] {
            assert_eq!(raw(&[1, 2, 3], length), "inputs.contents");
        }
        let good = || request(&cells(), &[1, 2, 3], Some(&[0; 6]));
        let wrong = |change: fn(&mut ModelInferRequest)| {
            let mut request = good();
            change(&mut request);
            field(request, &cells())
        };
        assert_eq!(wrong(|request| request.inputs.clear()), "inputs");
        assert_eq!(wrong(|request| request.inputs.push(InferInputTensor::default())), "inputs");
        assert_eq!(wrong(|request| request.inputs[0].name.clear()), "inputs.name");
        assert_eq!(wrong(|request| request.inputs[0].datatype = "FP32".to_owned()), "inputs.datatype");
        assert_eq!(wrong(|request| request.raw_input_contents.clear()), "raw_input_contents");
        assert_eq!(wrong(|request| request.raw_input_contents.push(Bytes::new())), "raw_input_contents");
        assert_eq!(wrong(|request| request.inputs[0].contents = Some(Default::default())), "raw_input_contents");
        let shared = |request: &mut ModelInferRequest| {
            request.inputs[0].parameters.insert(SHARED_MEMORY.to_owned(), Default::default());
        };
        assert_eq!(wrong(shared), "inputs.parameters");
    }

    #[test]
    fn typed_elements_are_in_their_own_field_and_in_their_range() {
        let contents = |uint: u32, fp32: usize| InferTensorContents {
            uint_contents: vec![uint; 6],
            fp32_contents: vec![0.0; fp32],
            ..InferTensorContents::default()
        };
        assert!(take_uint8(&mut typed(&cells(), &[1, 2, 3], contents(255, 0)), &cells(), LIMIT).is_ok());
        let wrong = |contents| field(typed(&cells(), &[1, 2, 3], contents), &cells());
        assert_eq!(wrong(contents(256, 0)), "inputs.contents.uint_contents");
        assert_eq!(wrong(contents(0, 1)), "inputs.contents.fp32_contents");
        assert_eq!(wrong(InferTensorContents::default()), "inputs.contents");
    }

    #[test]
    fn too_many_rows_are_a_limit_with_a_name() {
        let failure = take_uint8(&mut request(&cells(), &[5, 2, 3], Some(&[0; 30])), &cells(), LIMIT).unwrap_err();
        assert_eq!((failure.reason, &*failure.metadata["limit"]), (Reason::LimitExceeded, "max_rows"));
        assert!(take_uint8(&mut request(&cells(), &[i64::MAX, 2, 3], Some(&[])), &cells(), LIMIT).is_err());
        // Where no limit is in the way, a product that no machine can hold is no shape.
        let all = RowLimit { rows: usize::MAX, ..LIMIT };
        let failure = take_uint8(&mut request(&cells(), &[i64::MAX, 2, 3], Some(&[])), &cells(), all).unwrap_err();
        assert_eq!(failure.field.as_deref(), Some("inputs.shape"));
    }

    #[test]
    fn texts_that_are_cut_off_or_too_many_are_refused() {
        for raw in [&b"\x01"[..], b"\x01\0\0\0", b"\xff\xff\xff\xffa", b"\x01\0\0\0a\0", b"\0\0\0\0\0\0\0\0"] {
            assert_eq!(field(request(&files(), &[1], Some(raw)), &files()), "raw_input_contents", "{raw:?}");
        }
        assert_eq!(field(request(&files(), &[2], Some(b"\0\0\0\0")), &files()), "inputs.contents");
    }

    proptest! {
        #[test]
        fn texts_come_back_as_they_were(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5)) {
            let raw: Vec<u8> = texts.iter()
                .flat_map(|text| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat())
                .collect();
            let shape = [i64::try_from(texts.len()).unwrap()];
            let found = take_texts(&mut request(&files(), &shape, Some(&raw)), &files(), LIMIT).unwrap();
            prop_assert_eq!(found, texts);
        }

        #[test]
        fn whatever_comes_is_refused_or_has_the_claimed_number_of_elements(
            shape in prop::collection::vec(any::<i64>().prop_map(|size| if size % 2 == 0 { size % 7 } else { size }), 0..4),
            raw in prop::collection::vec(0..3_u8, 0..40),
        ) {
            if let Ok(texts) = take_texts(&mut request(&files(), &shape, Some(&raw)), &files(), LIMIT) {
                prop_assert_eq!(&[i64::try_from(texts.len()).unwrap()][..], &shape);
            }
            if let Ok(bytes) = take_uint8(&mut request(&cells(), &shape, Some(&raw)), &cells(), LIMIT) {
                prop_assert_eq!(i64::try_from(bytes.len()).unwrap(), shape[0] * 6);
            }
        }
    }
}

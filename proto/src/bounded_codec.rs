//! The codec of the Open Inference Protocol, which looks at a request before it makes a message of it.
//!
//! A field that takes two bytes on the wire may take hundreds in memory: an empty tensor, a parameter, a number. Where callers
//! may send megabytes, a request of nothing but such fields would take gigabytes. A request of ours has one tensor and a few
//! parameters, and its bytes in one piece.

use std::{any::TypeId, marker::PhantomData};

use prost::{
    DecodeError, Message,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::inference::ModelInferRequest;

/// Fields of a request at most, those of its tensors among them.
pub const MAX_FIELDS: usize = 4_096;
/// Bytes of typed numbers in a request at most: they may take eight times as much in memory.
pub const MAX_NUMBER_BYTES: usize = 4 * 1024 * 1024;

/// Encodes and decodes the messages of the protocol; requests within bounds only.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// The half that decodes.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            check_request(&message).map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        }
        let broken = |error: DecodeError| Status::invalid_argument(Refusal::from(error).to_string());
        U::decode(message).map(Some).map_err(broken)
    }
}

/// Why a request is not made a message.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error("expected a message of the protocol: {0}")]
    Broken(#[from] DecodeError),
    /// A field is longer than the message that it is in.
    #[error("expected a message of the protocol, found one that is cut off")]
    CutOff,
    /// It would take more memory than its sender paid for.
    #[error("expected at most {MAX_FIELDS} fields in a request, found more")]
    Fields,
    /// The same.
    #[error("expected at most {MAX_NUMBER_BYTES} bytes of typed numbers in a request, found more: send raw contents")]
    Numbers,
}

/// What a field holds that has a length.
#[derive(Clone, Copy)]
enum Inside {
    /// Bytes or a text, which take no more memory than on the wire, or nothing that is kept.
    Bytes,
    /// Packed numbers.
    Numbers,
    /// A message with these fields; all others are [`Inside::Bytes`].
    Fields(&'static [(u32, Inside)]),
}

const CONTENTS: Inside = Inside::Fields(&[
    (1, Inside::Numbers),
    (2, Inside::Numbers),
    (3, Inside::Numbers),
    (4, Inside::Numbers),
    (5, Inside::Numbers),
    (6, Inside::Numbers),
    (7, Inside::Numbers),
]);
const INPUT: Inside = Inside::Fields(&[(3, Inside::Numbers), (5, CONTENTS)]);
const OUTPUT: Inside = Inside::Fields(&[]);
/// `ModelInferRequest`: see its numbers in `grpc_predict_v2.proto`.
const REQUEST: &[(u32, Inside)] = &[(5, INPUT), (6, OUTPUT)];

/// Whether the encoded request may be decoded.
///
/// # Errors
/// If it would take far more memory than it has bytes, or is no message.
pub fn check_request(message: &[u8]) -> Result<(), Refusal> {
    Bounds { fields: MAX_FIELDS, number_bytes: MAX_NUMBER_BYTES }.look(message, REQUEST)
}

/// What is left of the bounds.
struct Bounds {
    fields: usize,
    number_bytes: usize,
}

impl Bounds {
    /// Looks at a message whose fields hold what `inside` says. It goes no deeper than the protocol does.
    fn look(&mut self, mut message: &[u8], inside: &[(u32, Inside)]) -> Result<(), Refusal> {
        while !message.is_empty() {
            self.fields = self.fields.checked_sub(1).ok_or(Refusal::Fields)?;
            let (number, wire_type) = decode_key(&mut message)?;
            let length = match wire_type {
                WireType::Varint => {
                    decode_varint(&mut message)?;
                    continue;
                }
                WireType::ThirtyTwoBit => 4,
                WireType::SixtyFourBit => 8,
                WireType::LengthDelimited => usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX),
                // A group is a field that nobody knows any more, and ends with one. What is in it counts, and is not kept.
                WireType::StartGroup | WireType::EndGroup => continue,
            };
            // The decoder would refuse it as well, but only after it has read beyond the message that it is in.
            let (field, rest) = message.split_at_checked(length).ok_or(Refusal::CutOff)?;
            message = rest;
            let known = inside.iter().find(|(known, _)| *known == number).map_or(Inside::Bytes, |&(_, inside)| inside);
            match known {
                Inside::Bytes => {}
                Inside::Numbers => {
                    self.number_bytes = self.number_bytes.checked_sub(field.len()).ok_or(Refusal::Numbers)?;
                }
                Inside::Fields(inside) => self.look(field, inside)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{
        InferTensorContents, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    };

    fn with(input: InferInputTensor) -> ModelInferRequest {
        ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }
    }

    fn contents(contents: InferTensorContents) -> ModelInferRequest {
        with(InferInputTensor { contents: Some(contents), ..InferInputTensor::default() })
    }

    fn check(request: &ModelInferRequest) -> Result<(), Refusal> {
        check_request(&request.encode_to_vec())
    }

    #[test]
    fn a_request_as_clients_send_it_passes_whatever_its_size() {
        let mut request = with(InferInputTensor {
            name: "mel".to_owned(),
            datatype: "UINT8".to_owned(),
            shape: vec![2_000, 128, 96],
            ..InferInputTensor::default()
        });
        request.raw_input_contents.push(vec![7; 2_000 * 128 * 96].into());
        let value = crate::inference::InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(0.5)) };
        request.parameters.insert("early_error_rate".to_owned(), value);
        assert!(check(&request).is_ok());
        let uint_contents = vec![255; 100 * 128 * 96];
        assert!(check(&contents(InferTensorContents { uint_contents, ..InferTensorContents::default() })).is_ok());
    }

    #[test]
    fn what_reaches_beyond_the_message_that_it_is_in_is_refused() {
        // The shape of an input says that it goes on in the field behind the input.
        let message = [&[0x2a, 3, 0x1a, 0xff, 0x07, 0x3a, 0xfc, 0x07][..], &[1; 1_020]].concat();
        assert!(matches!(check_request(&message), Err(Refusal::CutOff)));
    }

    #[test]
    fn what_would_grow_in_memory_is_refused() {
        let many = MAX_FIELDS + 1;
        let tensors =
            ModelInferRequest { inputs: vec![InferInputTensor::default(); many], ..ModelInferRequest::default() };
        let outputs = ModelInferRequest { outputs: vec![Default::default(); many], ..ModelInferRequest::default() };
        let raw =
            ModelInferRequest { raw_input_contents: vec![Default::default(); many], ..ModelInferRequest::default() };
        let texts = InferTensorContents { bytes_contents: vec![Default::default(); many], ..Default::default() };
        for request in [tensors, outputs, raw, contents(texts)] {
            assert!(matches!(check(&request), Err(Refusal::Fields)));
        }
        let many = MAX_NUMBER_BYTES + 1;
        let shape = with(InferInputTensor { shape: vec![1; many], ..InferInputTensor::default() });
        let bools = InferTensorContents { bool_contents: vec![true; many], ..InferTensorContents::default() };
        let wide = InferTensorContents { uint64_contents: vec![1; many], ..InferTensorContents::default() };
        for request in [shape, contents(bools), contents(wide)] {
            assert!(matches!(check(&request), Err(Refusal::Numbers)));
        }
        // Numbers that are not packed are fields.
        let unpacked: Vec<u8> = [0x20, 1].repeat(MAX_FIELDS);
        let mut input = vec![0x2a];
        prost::encode_length_delimiter(unpacked.len(), &mut input).unwrap();
        input.extend(&unpacked);
        let mut message = vec![0x2a];
        prost::encode_length_delimiter(input.len(), &mut message).unwrap();
        message.extend(&input);
        assert!(matches!(check_request(&message), Err(Refusal::Fields)));
    }

    #[test]
    fn what_is_no_message_is_left_to_the_decoder_or_refused() {
        for message in
            [&b"\x2a"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00", b"\x2a\xff\xff\xff\x7f", b"\x08"]
        {
            assert!(check_request(message).is_err() || ModelInferRequest::decode(message).is_err(), "{message:?}");
        }
    }
}

//! Which tensors a request wants to have, and how they are written.

use bytes::{BufMut, Bytes, BytesMut};
use chorale_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_request::InferRequestedOutputTensor, model_infer_response::InferOutputTensor,
};

use super::{
    parameters::Parameters,
    quoted,
    spec::{Datatype, LENGTH_BYTES, SHARED_MEMORY, TensorSpec},
};
use crate::failure::Failure;

/// The parameter of a request that wants its outputs binary, or does not; without it they are as its inputs were.
pub(super) const BINARY_OUTPUTS: &str = "binary_data_output";
/// The parameter of an output that wants so many of the most probable labels in place of all numbers.
const CLASSIFICATION: &str = "classification";

/// A tensor that came out of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its dimensions, the rows first.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub values: Values,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Numbers.
    Fp32(Vec<f32>),
    /// Texts.
    Bytes(Vec<Bytes>),
}

impl Values {
    /// These texts.
    pub fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::Bytes(texts.into_iter().map(|text| Bytes::copy_from_slice(text.as_ref())).collect())
    }

    fn datatype(&self) -> Datatype {
        match self {
            Self::Fp32(_) => Datatype::Fp32,
            Self::Bytes(_) => Datatype::Bytes,
        }
    }

    /// Little-endian, each text after its length.
    fn raw(&self) -> Bytes {
        let mut raw = BytesMut::new();
        match self {
            Self::Fp32(numbers) => numbers.iter().for_each(|&number| raw.put_f32_le(number)),
            Self::Bytes(texts) => {
                raw.reserve(texts.iter().map(|text| LENGTH_BYTES + text.len()).sum());
                for text in texts {
                    // A label is no 4 GiB long.
                    raw.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
                    raw.put_slice(text);
                }
            }
        }
        raw.freeze()
    }

    fn typed(&self) -> InferTensorContents {
        match self {
            Self::Fp32(numbers) => {
                InferTensorContents { fp32_contents: numbers.clone(), ..InferTensorContents::default() }
            }
            Self::Bytes(texts) => {
                InferTensorContents { bytes_contents: texts.clone(), ..InferTensorContents::default() }
            }
        }
    }
}

/// Which outputs a request wants, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedOutputs {
    outputs: Vec<WantedOutput>,
    binary: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct WantedOutput {
    name: &'static str,
    /// So many labels of each row, in place of its numbers.
    top: Option<usize>,
}

impl WantedOutputs {
    /// Those of `request`, which are among the `known` ones; all of them if it names none.
    ///
    /// # Errors
    /// `REQUEST_INVALID` names what the model does not give.
    pub fn of(request: &ModelInferRequest, parameters: Parameters<'_>, known: &[TensorSpec]) -> Result<Self, Failure> {
        let mut outputs: Vec<WantedOutput> = Vec::new();
        let mut binary = !request.raw_input_contents.is_empty();
        for asked in &request.outputs {
            let output = WantedOutput::of(asked, known)?;
            if outputs.iter().any(|other| other.name == output.name) {
                return Err(Failure::invalid(
                    "outputs",
                    format!("expected each output once, found `{}` twice", output.name),
                ));
            }
            let flag = asked.parameters.get("binary_data").and_then(|value| value.parameter_choice.as_ref());
            binary |= flag == Some(&ParameterChoice::BoolParam(true));
            outputs.push(output);
        }
        if outputs.is_empty() {
            outputs = known.iter().map(|spec| WantedOutput { name: spec.name, top: None }).collect();
        }
        let binary = parameters.flag(BINARY_OUTPUTS)?.unwrap_or(binary);
        Ok(Self { outputs, binary })
    }

    /// Whether the output `name` is one of them.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output.name == name)
    }

    /// The tensors of an answer: those of `outputs` that are wanted, in the order in which they were asked for. `labels` are
    /// those of the last dimension of numbers.
    #[must_use]
    pub fn answer(&self, outputs: &[Output], labels: &[String]) -> ModelInferResponse {
        let mut response = ModelInferResponse::default();
        for wanted in &self.outputs {
            let Some(output) = outputs.iter().find(|output| output.name == wanted.name) else { continue };
            let ranked = wanted.top.and_then(|top| most_probable(output, labels, top));
            let Output { name, shape, values } = ranked.as_ref().unwrap_or(output);
            response.outputs.push(InferOutputTensor {
                name: (*name).to_owned(),
                datatype: values.datatype().name().to_owned(),
                shape: shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
                contents: (!self.binary).then(|| values.typed()),
                ..InferOutputTensor::default()
            });
            if self.binary {
                response.raw_output_contents.push(values.raw());
            }
        }
        response
    }
}

impl WantedOutput {
    fn of(asked: &InferRequestedOutputTensor, known: &[TensorSpec]) -> Result<Self, Failure> {
        let InferRequestedOutputTensor { name, parameters } = asked;
        let spec = known.iter().find(|spec| spec.name == name).ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|spec| format!("`{}`", spec.name)).collect();
            Failure::invalid(
                "outputs.name",
                format!("expected outputs among {}, found {}", names.join(", "), quoted(name)),
            )
        })?;
        if parameters.contains_key(SHARED_MEMORY) {
            let message = format!("expected `{}` to be sent with the answer: no memory is shared", spec.name);
            return Err(Failure::invalid("outputs.parameters", message));
        }
        let asked = Parameters::unchecked(parameters);
        let top = match asked.whole(CLASSIFICATION)? {
            None => None,
            Some(0) => return Err(Failure::invalid("outputs.parameters", "expected at least one label, found 0")),
            Some(_) if spec.datatype != Datatype::Fp32 || spec.shape.len() != 2 => {
                let message = format!(
                    "expected `{CLASSIFICATION}` of an output with a number for each label, not of `{}`",
                    spec.name
                );
                return Err(Failure::invalid("outputs.parameters", message));
            }
            Some(top) => Some(usize::try_from(top).unwrap_or(usize::MAX)),
        };
        Ok(Self { name: spec.name, top })
    }
}

/// The most probable labels of each row as texts `NUMBER:INDEX:LABEL`, the most probable first, the first of equals first.
fn most_probable(output: &Output, labels: &[String], top: usize) -> Option<Output> {
    let (Values::Fp32(numbers), &[rows, columns]) = (&output.values, output.shape.as_slice()) else { return None };
    let top = top.min(columns);
    let mut texts = Vec::with_capacity(rows * top);
    for row in numbers.chunks(columns.max(1)) {
        let mut ranked: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
        ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        texts.extend(ranked.into_iter().take(top).map(|(index, number)| {
            let label = labels.get(index).map_or("", String::as_str);
            format!("{number:.6}:{index}:{label}")
        }));
    }
    Some(Output { name: output.name, shape: vec![rows, top], values: Values::texts(texts) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chorale_proto::inference::InferParameter;

    use super::*;

    fn known() -> [TensorSpec; 2] {
        [
            TensorSpec { name: "genre", datatype: Datatype::Bytes, shape: vec![-1] },
            TensorSpec { name: "probabilities", datatype: Datatype::Fp32, shape: vec![-1, 3] },
        ]
    }

    fn outputs() -> [Output; 2] {
        [
            Output { name: "genre", shape: vec![2], values: Values::texts(["jazz", "rock"]) },
            Output {
                name: "probabilities",
                shape: vec![2, 3],
                values: Values::Fp32(vec![0.5, 0.25, 0.25, 0.125, 0.25, 0.5]),
            },
        ]
    }

    fn labels() -> [String; 3] {
        ["jazz", "pop", "rock"].map(str::to_owned)
    }

    fn parameters(entries: &[(&str, ParameterChoice)]) -> HashMap<String, InferParameter> {
        let entry = |(name, value): &(&str, ParameterChoice)| {
            ((*name).to_owned(), InferParameter { parameter_choice: Some(value.clone()) })
        };
        entries.iter().map(entry).collect()
    }

    fn asked(name: &str, entries: &[(&str, ParameterChoice)]) -> InferRequestedOutputTensor {
        InferRequestedOutputTensor { name: name.to_owned(), parameters: parameters(entries) }
    }

    fn wanted(request: &ModelInferRequest) -> Result<WantedOutputs, Failure> {
        WantedOutputs::of(request, Parameters::unchecked(&request.parameters), &known())
    }

    #[test]
    fn who_asks_for_nothing_gets_everything_and_who_asks_gets_that() {
        let all = wanted(&ModelInferRequest::default()).unwrap();
        let names: Vec<_> = all.answer(&outputs(), &labels()).outputs.into_iter().map(|output| output.name).collect();
        assert_eq!(names, ["genre", "probabilities"]);
        let request = ModelInferRequest { outputs: vec![asked("probabilities", &[])], ..ModelInferRequest::default() };
        let one = wanted(&request).unwrap();
        assert!(one.include("probabilities") && !one.include("genre"));
        let answer = one.answer(&outputs(), &labels());
        assert_eq!((answer.outputs.len(), &*answer.outputs[0].datatype), (1, "FP32"));
        assert_eq!(answer.outputs[0].shape, [2, 3]);
        assert_eq!(answer.outputs[0].contents.as_ref().unwrap().fp32_contents, [0.5, 0.25, 0.25, 0.125, 0.25, 0.5]);
        assert!(answer.raw_output_contents.is_empty());
    }

    #[test]
    fn an_answer_is_binary_if_the_request_was_or_wants_it() {
        let raw = ModelInferRequest { raw_input_contents: vec![Bytes::new()], ..ModelInferRequest::default() };
        let answer = wanted(&raw).unwrap().answer(&outputs(), &labels());
        assert!(answer.outputs.iter().all(|output| output.contents.is_none()));
        assert_eq!(answer.raw_output_contents[0].as_ref(), b"\x04\0\0\0jazz\x04\0\0\0rock");
        assert_eq!(answer.raw_output_contents[1].len(), 6 * 4);
        assert_eq!(answer.raw_output_contents[1][..4], 0.5_f32.to_le_bytes());

        let with = |value| parameters(&[(BINARY_OUTPUTS, ParameterChoice::BoolParam(value))]);
        let typed = ModelInferRequest { parameters: with(false), ..raw };
        assert!(!wanted(&typed).unwrap().binary);
        assert!(wanted(&ModelInferRequest { parameters: with(true), ..ModelInferRequest::default() }).unwrap().binary);
        let outputs = vec![asked("genre", &[("binary_data", ParameterChoice::BoolParam(true))])];
        assert!(wanted(&ModelInferRequest { outputs, ..ModelInferRequest::default() }).unwrap().binary);
    }

    #[test]
    fn a_classification_is_the_most_probable_labels() {
        let top = |top| vec![asked("probabilities", &[(CLASSIFICATION, ParameterChoice::Int64Param(top))])];
        for (asked, columns) in [(2, 2), (9, 3)] {
            let request = ModelInferRequest { outputs: top(asked), ..ModelInferRequest::default() };
            let answer = wanted(&request).unwrap().answer(&outputs(), &labels());
            let output = &answer.outputs[0];
            assert_eq!((&*output.datatype, output.shape.as_slice()), ("BYTES", &[2, columns][..]));
            let texts = &output.contents.as_ref().unwrap().bytes_contents;
            assert_eq!(texts[..2], ["0.500000:0:jazz", "0.250000:1:pop"]);
            assert_eq!(texts[usize::try_from(columns).unwrap()], "0.500000:2:rock");
        }
    }

    #[test]
    fn what_the_model_does_not_give_is_named() {
        let refused = |outputs: Vec<InferRequestedOutputTensor>| {
            wanted(&ModelInferRequest { outputs, ..ModelInferRequest::default() }).unwrap_err()
        };
        let failure = refused(vec![asked("scores", &[])]);
        assert_eq!(failure.field.as_deref(), Some("outputs.name"));
        assert!(failure.message.contains("`genre`, `probabilities`"), "{failure}");
        assert!(refused(vec![asked("genre", &[]), asked("genre", &[])]).message.contains("twice"));
        let shared = [(SHARED_MEMORY, ParameterChoice::StringParam("x".to_owned()))];
        assert!(refused(vec![asked("genre", &shared)]).message.contains("memory"));
        let top = |top| [(CLASSIFICATION, ParameterChoice::Int64Param(top))];
        for outputs in [asked("genre", &top(1)), asked("probabilities", &top(0)), asked("probabilities", &top(-1))] {
            assert!(refused(vec![outputs]).field.unwrap().contains("parameters"));
        }
    }
}

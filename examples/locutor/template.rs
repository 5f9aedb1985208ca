//! From messages to token ids: the model's own chat template, or one of the well-known ones.

use crate::Failure;
use clap::ValueEnum;
use locutor::text::{Specials, TokenKind, Tokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

/// Templates for files without one.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Known {
    /// `<|im_start|>role ... <|im_end|>`: Qwen, SmolLM and many others.
    Chatml,
    /// `<start_of_turn>role ... <end_of_turn>`: Gemma.
    Gemma,
    /// No template: questions and answers are one running text.
    Plain,
}

/// A well-known template: how it is recognised, where an answer ends, and its text in Jinja.
struct Family {
    known: Known,
    /// A token that only vocabularies of this family have.
    marker: Option<&'static str>,
    stop: Option<&'static str>,
    source: &'static str,
}

const FAMILIES: [Family; 3] = [
    Family {
        known: Known::Chatml,
        marker: Some("<|im_start|>"),
        stop: Some("<|im_end|>"),
        source: "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
                 {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    },
    Family {
        known: Known::Gemma,
        marker: Some("<start_of_turn>"),
        stop: Some("<end_of_turn>"),
        // There is no role for instructions: they stand in front of the first question.
        source: "{{ bos_token }}{% set ns = namespace(first='') %}{% for message in messages %}\
                 {% if message.role == 'system' %}{% set ns.first = message.content ~ '\n\n' %}{% else %}\
                 <start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n\
                 {{ ns.first }}{% set ns.first = '' %}{{ message.content | trim }}<end_of_turn>\n\
                 {% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    },
    Family {
        known: Known::Plain,
        marker: None,
        stop: None,
        source: "{% for message in messages %}\
                 {% if message.role != 'assistant' and not loop.first %}{{ ' ' }}{% endif %}\
                 {{ message.content }}{% endfor %}",
    },
];

/// One contribution to a conversation.
#[derive(Debug, Clone)]
pub struct Message {
    pub role: &'static str,
    pub content: String,
}

/// Around what only looks like a control token. These two are not characters: Unicode keeps them for the inside of
/// programs.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// A template with the vocabulary that it is for.
pub struct Template<'t> {
    tokenizer: &'t Tokenizer<'t>,
    environment: Environment<'static>,
    /// Texts that would become control tokens, longest first.
    controls: Vec<&'t str>,
    /// Where an answer ends besides the vocabulary's own ends.
    pub stop: Option<&'static str>,
    /// What is in use.
    pub name: &'static str,
}

impl<'t> Template<'t> {
    /// The wanted template; else the file's; else the one whose markers the vocabulary has; else running text.
    pub fn new(tokenizer: &'t Tokenizer<'t>, wanted: Option<Known>) -> Result<Self, Failure> {
        let family = |known| FAMILIES.iter().find(|family| family.known == known);
        let fits = |family: &&Family| family.marker.is_none_or(|marker| tokenizer.find(marker).is_some());
        let (source, stop, name) = match (wanted.and_then(family), tokenizer.chat_template()) {
            (None, Some(source)) => (source, None, "the file's"),
            (None, None) => FAMILIES.iter().find(fits).map(described).ok_or("no template")?,
            (Some(family), _) => described(family),
        };
        let mut environment = Environment::new();
        // The settings with which these templates are written.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<(), minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let added = environment.add_template_owned("chat_template", source.to_string());
        added.map_err(|error| failed(&error))?;
        let mut controls: Vec<&str> = (0..tokenizer.vocab_len() as u32)
            .filter_map(|id| tokenizer.token(id))
            .filter(|token| matches!(token.kind, TokenKind::Control | TokenKind::Unknown))
            .map(|token| token.text)
            .filter(|text| !text.is_empty())
            .collect();
        controls.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Ok(Self { tokenizer, environment, controls, stop, name })
    }

    /// The tokens of a conversation up to where the model's next answer begins. What people wrote never becomes a
    /// control token.
    pub fn encode(&self, messages: &[Message]) -> Result<Vec<u32>, Failure> {
        let text = self.render(messages)?;
        let mut ids = Vec::new();
        for (index, part) in text.split([OPEN, CLOSE]).enumerate() {
            let specials = if index % 2 == 0 { Specials::Parse } else { Specials::Plain };
            ids.extend(self.tokenizer.encode_vec(part, specials)?);
        }
        let bos = self.tokenizer.ids().bos;
        let bos = bos.filter(|bos| self.tokenizer.add_bos() && ids.first() != Some(bos));
        ids.splice(0..0, bos);
        Ok(ids)
    }

    /// Tokens at the beginning that are there for the system message alone, whatever is said after it; 0 without one.
    pub fn instructions(&self, messages: &[Message]) -> Result<usize, Failure> {
        let Some(system) = messages.first().filter(|message| message.role == "system") else { return Ok(0) };
        let with =
            |content: &str| self.encode(&[system.clone(), Message { role: "user", content: content.into() }]);
        let (one, other) = (with("a")?, with("b")?);
        Ok(one.iter().zip(&other).take_while(|(one, other)| one == other).count())
    }

    fn render(&self, messages: &[Message]) -> Result<String, Failure> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role, content => self.marked(&message.content) })
            .collect();
        let token =
            |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id)).map_or("", |token| token.text);
        let ids = self.tokenizer.ids();
        let values = context! {
            messages,
            add_generation_prompt => true,
            bos_token => token(ids.bos),
            eos_token => token(ids.eos),
        };
        let template = self.environment.get_template("chat_template").map_err(|error| failed(&error))?;
        template.render(values).map_err(|error| failed(&error))
    }

    /// A text with a mark around everything that looks like a control token.
    fn marked(&self, content: &str) -> String {
        let content = content.replace([OPEN, CLOSE], "");
        let mut marked = String::with_capacity(content.len());
        let mut rest = content.as_str();
        while let Some(first) = rest.chars().next() {
            match self.controls.iter().find(|control| rest.starts_with(**control)) {
                Some(control) => {
                    marked.extend([OPEN]);
                    marked.push_str(control);
                    marked.extend([CLOSE]);
                    rest = &rest[control.len()..];
                }
                None => {
                    marked.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        marked
    }
}

fn described(family: &'static Family) -> (&'static str, Option<&'static str>, &'static str) {
    let name = match family.known {
        Known::Chatml => "chatml",
        Known::Gemma => "gemma",
        Known::Plain => "plain",
    };
    (family.source, family.stop, name)
}

/// A template's error in one line.
fn failed(error: &minijinja::Error) -> Failure {
    format!("tokenizer.chat_template: {error}").replace('\n', " ").into()
}

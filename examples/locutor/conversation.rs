//! The file of a saved conversation: what `chat` alone knows, and behind it what [`Session::save`] writes.
//!
//! ```text
//! locutor-chat 1 LENGTH HASH\n      bytes of the object, and their FNV-1a hash in hexadecimal
//! {"ids":[...],"messages":[{"content":"...","role":"..."},...],"template":"..." or null}
//! the state, see locutor::session::state
//! ```
//!
//! `ids` are all tokens of the conversation, those that the session has forgotten included: the next turn is compared
//! with them. `template` is that of `--template`.
//!
//! [`Session::save`]: locutor::session::Session::save

use crate::Failure;
use crate::hash::Fnv;
use crate::template::{Known, Message};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::Path;

const MAGIC: &str = "locutor-chat";
const VERSION: &str = "1";
/// Bytes that the first line has at most.
const LINE: usize = 64;
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// A conversation without the state of its session.
#[derive(Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub ids: Vec<u32>,
    pub template: Option<Known>,
}

/// Whether a file's bytes begin as those of a conversation do.
pub fn is_conversation(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC.as_bytes())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::new();
    hash.bytes(bytes.iter().copied());
    hash.0
}

impl Conversation {
    /// What stands in front of the state.
    pub fn front(&self) -> Vec<u8> {
        let message = |message: &Message| json!({"role": message.role, "content": message.content});
        let template = self.template.and_then(|known| known.to_possible_value());
        let object = json!({
            "messages": self.messages.iter().map(message).collect::<Vec<_>>(),
            "ids": self.ids,
            "template": template.map(|known| known.get_name().to_string()),
        });
        let object = format!("{object}\n");
        format!("{MAGIC} {VERSION} {} {:016x}\n{object}", object.len(), hash(object.as_bytes())).into_bytes()
    }

    /// Reads what stands in front of the state, and returns where that begins.
    pub fn read(path: &Path, file: &[u8]) -> Result<(Self, usize), Failure> {
        let name = path.display();
        if !is_conversation(file) {
            return Err(format!("{name}: no saved conversation; generate --load goes on with a text").into());
        }
        let damaged = |at: usize| Failure::from(format!("{name}: the conversation is damaged at byte {at}"));
        let end = file.iter().take(LINE).position(|byte| *byte == b'\n').ok_or_else(|| damaged(0))?;
        let line = std::str::from_utf8(&file[..end]).map_err(|_| damaged(0))?;
        let [_, version, len, expected] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(damaged(0));
        };
        if version != VERSION {
            return Err(format!("{name}: the conversation has version {version}, which is not known").into());
        }
        let len: usize = len.parse().map_err(|_| damaged(0))?;
        let object = file[end + 1..].get(..len).ok_or_else(|| damaged(file.len()))?;
        if format!("{:016x}", hash(object)) != expected {
            return Err(damaged(end + 1));
        }
        let object: Value = serde_json::from_slice(object).map_err(|_| damaged(end + 1))?;
        Ok((Self::of(&object).ok_or_else(|| damaged(end + 1))?, end + 1 + len))
    }

    fn of(object: &Value) -> Option<Self> {
        let message = |message: &Value| {
            let role = message["role"].as_str()?;
            let role = ROLES.into_iter().find(|known| *known == role)?;
            Some(Message { role, content: message["content"].as_str()?.into() })
        };
        let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
        let template = match &object["template"] {
            Value::Null => None,
            name => Some(Known::from_str(name.as_str()?, false).ok()?),
        };
        Some(Self {
            messages: object["messages"].as_array()?.iter().map(message).collect::<Option<_>>()?,
            ids: object["ids"].as_array()?.iter().map(id).collect::<Option<_>>()?,
            template,
        })
    }
}

//! The state as bytes.

use super::{Object, Store, View, ledger::Memory};
use serde::{Deserialize, Serialize};

/// Form of the bytes. History: 1 (2026-11), first.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Body<T> {
    form: u32,
    index: u64,
    memory: Memory,
    objects: T,
}

/// Bytes that are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// They do not parse.
    #[error("snapshot is not readable")]
    Decode(#[from] rmp_serde::decode::Error),
    /// They come from another form of the store.
    #[error("snapshot has form {0}, this manager reads form {FORM}")]
    Form(u32),
    /// Their objects contradict each other.
    #[error("snapshot contradicts itself")]
    Contradiction(#[from] super::ApplyError),
}

impl Store {
    /// The state as bytes (MessagePack with names). Cut them where you like.
    ///
    /// # Errors
    /// When an object cannot be encoded, which no object of the store should cause.
    pub fn snapshot(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        self.view().snapshot()
    }

    /// The state that `bytes` say.
    ///
    /// # Errors
    /// When the bytes are not a snapshot or contradict themselves.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let mut body: Body<Vec<Object>> = weft_proto::codec::decode(bytes)?;
        if body.form != FORM {
            return Err(RestoreError::Form(body.form));
        }
        let mut view = View::default();
        view.index = body.index;
        for object in &mut body.objects {
            view.share(object, None);
            view.ledger.take(object)?;
            if let Some(by) = view.link(object) {
                let name = format!("{}", object.key());
                return Err(super::ApplyError::NameTaken { name, by }.into());
            }
        }
        view.ledger.remember(&body.memory);
        Ok(Self::from_view(view))
    }
}

impl View {
    /// The state as bytes; see [`Store::snapshot`]. A view can be encoded while the store goes on.
    ///
    /// # Errors
    /// When an object cannot be encoded, which no object of the store should cause.
    pub fn snapshot(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        weft_proto::codec::encode(&Body {
            form: FORM,
            index: self.index,
            memory: self.ledger.memory(),
            objects: self.objects().collect::<Vec<_>>(),
        })
    }
}

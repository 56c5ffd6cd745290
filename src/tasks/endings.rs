//! Grants that end together, however many: the rest of what one write has begun ([`crate::store::grant::ending`]).

use std::sync::Arc;

use crate::id::Id;
use crate::instance::Instance;
use crate::store::grant::ending::{self, Ending};
use crate::store::{StoreError, realm};

/// Whose grants end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A person's.
    Person(Id),
    /// Those of whoever held a role that is gone.
    Role {
        /// The realm's app.
        app: Id,
        /// The role.
        role: Id,
    },
}

/// Ends tokens and streams of what was ended by a write that is durable, and then the rest, before this returns. Should that fail, or nobody
/// wait for it any more, it is gone on with by [`go_on`]; until then what is left is refused all the same.
///
/// # Errors
/// A step could not be stored.
pub async fn finish(instance: &Instance, whose: Whose, first: Ending) -> Result<(), StoreError> {
    end(instance, &first);
    if !first.is_unfinished {
        return Ok(());
    }
    // Of what is left no token is looked at in memory any more.
    instance.tokens.forget();
    let _alone = instance.endings.lock().await;
    loop {
        let step = match whose {
            Whose::Person(user) => instance.store.write(move |transaction| ending::step_of_person(transaction, user)).await?,
            Whose::Role { app, role } => instance.store.write(move |transaction| realm::step_of_role(transaction, app, role)).await?,
        };
        end(instance, &step);
        if !step.is_unfinished {
            return Ok(());
        }
    }
}

/// Ends what was left when the daemon was killed, or a step failed; unless somebody is at it.
///
/// # Errors
/// A step could not be stored, or what is left could not be read.
pub async fn go_on(instance: &Arc<Instance>) -> Result<(), StoreError> {
    let Ok(_alone) = instance.endings.try_lock() else { return Ok(()) };
    while instance.store.read(ending::is_left).await? {
        end(instance, &instance.store.write(ending::step).await?);
    }
    Ok(())
}

/// Ends grants in the table too, so that the next call and every open stream see it. The commit came first.
fn end(instance: &Instance, ending: &Ending) {
    for grant in &ending.ended {
        instance.tokens.end(*grant);
    }
}

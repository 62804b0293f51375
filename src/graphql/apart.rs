//! Mutations that fail one by one.

use std::borrow::Cow;

use async_graphql::parser::types::Field;
use async_graphql::registry::{MetaType, Registry};
use async_graphql::{
    ContainerType, Context, ContextSelectionSet, ObjectType, OutputType, Positioned, ServerError,
    ServerResult, Value,
};

use crate::error::Error;

/// A root whose fields all may be null.
///
/// What one mutation of a request has changed stays so when the next one fails. If that made all of `data` null, as with
/// fields that cannot be, nobody would be told of the first.
#[derive(Debug, Default)]
pub struct Apart<T>(pub T);

impl<T: ObjectType> ContainerType for Apart<T> {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        let answered = match gone(ctx) {
            // It would wait as long once more, until the time of the whole request is over.
            Some(error) => Err(ctx.set_error_path(error)),
            None => self.0.resolve_field(ctx).await,
        };
        answered.or_else(|error| {
            ctx.add_error(error);
            Ok(Some(Value::Null))
        })
    }
}

/// The error of a field before, if that was unavailable: most often because the database cannot be reached.
fn gone(ctx: &Context<'_>) -> Option<ServerError> {
    let errors = ctx.query_env.errors.lock().ok()?;
    let is_gone = |error: &&ServerError| {
        let code = error.extensions.as_ref().and_then(|it| it.get("code"));
        code == Some(&Value::from(Error::Unavailable.code()))
    };
    let error = errors.iter().find(is_gone)?;
    let mut again = ServerError::new(error.message.clone(), Some(ctx.item.pos));
    again.extensions = error.extensions.clone();
    Some(again)
}

impl<T: ObjectType> OutputType for Apart<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        let name = T::create_type_info(registry);
        if let Some(MetaType::Object { fields, .. }) = registry.types.get_mut(&*T::type_name()) {
            for field in fields.values_mut() {
                field.ty.truncate(field.ty.trim_end_matches('!').len());
            }
        }
        name
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        self.0.resolve(ctx, field).await
    }
}

impl<T: ObjectType> ObjectType for Apart<T> {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_graphql::{EmptySubscription, Object, Schema};

    use super::*;
    use crate::error::Result;

    struct Query;

    #[Object]
    impl Query {
        async fn nothing(&self) -> i32 {
            0
        }
    }

    struct Changes(Arc<AtomicUsize>);

    #[Object]
    impl Changes {
        async fn change(&self) -> usize {
            self.0.fetch_add(1, Ordering::Relaxed) + 1
        }

        async fn forbidden(&self) -> Result<i32> {
            Err(Error::InPerson)
        }

        async fn unavailable(&self) -> Result<i32> {
            Err(Error::Unavailable)
        }
    }

    #[tokio::test]
    async fn the_others_are_made_but_none_after_one_that_is_unavailable() {
        let made = Arc::new(AtomicUsize::new(0));
        let schema = Schema::new(Query, Apart(Changes(made.clone())), EmptySubscription);
        assert!(schema.sdl().contains("change: Int\n"), "{}", schema.sdl());
        let document = "mutation { a: change forbidden b: change unavailable c: change d: change }";
        let answer = schema.execute(document).await;
        let expected = r#"{"a":1,"forbidden":null,"b":2,"unavailable":null,"c":null,"d":null}"#;
        assert_eq!(serde_json::to_string(&answer.data).unwrap(), expected);
        let told: Vec<_> = answer
            .errors
            .iter()
            .map(|error| (error.path.len(), error.locations[0].column))
            .collect();
        assert_eq!(told, [(1, 22), (1, 42), (1, 54), (1, 64)]);
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }
}

//! Records in the answers of mutations: shown to who may read them.
//!
//! The permission to change a record is not the permission to read it: a form on a web site adds contacts and sees none.

use std::borrow::Cow;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, ObjectType, OutputType, Positioned, ServerResult, Value};

use super::eager::object;
use super::{Batch, Session};

/// A record of the kind that `B` loads. For who may not read that kind the field is null, with an error that names the
/// permission; the change has been made all the same.
pub struct Shown<B: Batch>(pub B::Value);

impl<B: Batch> OutputType for Shown<B>
where
    B::Value: ObjectType,
{
    fn type_name() -> Cow<'static, str> {
        <B::Value as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <B::Value as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let session = ctx.data_unchecked::<std::sync::Arc<Session>>();
        let permitted = session.viewer().and_then(|viewer| viewer.require(B::READ));
        match permitted {
            Ok(()) => object(ctx, &self.0).await,
            Err(error) => {
                let error = async_graphql::Error::from(error).into_server_error(field.pos);
                Err(ctx.set_error_path(error))
            }
        }
    }
}

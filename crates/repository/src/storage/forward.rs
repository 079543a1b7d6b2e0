//! A store around a store does most things as the inner one does.

/// Methods of [`Storage`](super::Storage) that do what those of a field do, for use in an `impl`:
/// `forward!(inner: location, list);`. What is not named there is written out, or the trait's
/// default.
macro_rules! forward {
    ($to:ident: $($method:ident),+ $(,)?) => {
        $($crate::storage::forward!(@$method $to);)+
    };
    (@@ $to:ident $method:ident($($name:ident: $type:ty),*) -> $result:ty) => {
        fn $method(&self, $($name: $type),*) -> $result {
            self.$to.$method($($name),*)
        }
    };
    (@location $to:ident) => {
        $crate::storage::forward!(@@ $to location() -> String);
    };
    (@prepare $to:ident) => {
        $crate::storage::forward!(@@ $to prepare() -> Result<(), $crate::storage::StorageError>);
    };
    (@list $to:ident) => {
        $crate::storage::forward!(@@ $to
            list(kind: $crate::storage::FileKind)
            -> Result<Vec<$crate::storage::Listed>, $crate::storage::StorageError>
        );
    };
    (@size $to:ident) => {
        $crate::storage::forward!(@@ $to
            size(file: $crate::storage::File)
            -> Result<u64, $crate::storage::StorageError>
        );
    };
    (@read $to:ident) => {
        $crate::storage::forward!(@@ $to
            read(file: $crate::storage::File, bytes_max: u64)
            -> Result<Vec<u8>, $crate::storage::StorageError>
        );
    };
    (@read_range $to:ident) => {
        $crate::storage::forward!(@@ $to
            read_range(file: $crate::storage::File, offset: u64, buffer: &mut [u8])
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@put $to:ident) => {
        $crate::storage::forward!(@@ $to
            put(file: $crate::storage::File, content: &[u8])
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@begin_put $to:ident) => {
        $crate::storage::forward!(@@ $to
            begin_put(file: $crate::storage::File, content: &[u8])
            -> Result<$crate::storage::Storing<'_>, $crate::storage::StorageError>
        );
    };
    (@put_pack $to:ident) => {
        $crate::storage::forward!(@@ $to
            put_pack(
                id: $crate::id::PackId,
                holds: $crate::format::pack::BlobKind,
                content: &std::sync::Arc<Vec<u8>>
            )
            -> Result<$crate::storage::Storing<'_>, $crate::storage::StorageError>
        );
    };
    (@put_spooled $to:ident) => {
        $crate::storage::forward!(@@ $to
            put_spooled(
                holds: $crate::format::pack::BlobKind,
                pack: &$crate::storage::Spooled
            )
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@sends_from_files $to:ident) => {
        $crate::storage::forward!(@@ $to sends_from_files() -> bool);
    };
    (@begin_pack $to:ident) => {
        $crate::storage::forward!(@@ $to
            begin_pack()
            -> Result<Option<Box<dyn $crate::storage::PackFile>>, $crate::storage::StorageError>
        );
    };
    (@put_new $to:ident) => {
        $crate::storage::forward!(@@ $to
            put_new(file: $crate::storage::File, content: &[u8])
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@delete $to:ident) => {
        $crate::storage::forward!(@@ $to
            delete(file: $crate::storage::File)
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@remove $to:ident) => {
        $crate::storage::forward!(@@ $to
            remove(file: $crate::storage::File)
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@delete_all $to:ident) => {
        $crate::storage::forward!(@@ $to
            delete_all(files: &[$crate::storage::File])
            -> Vec<Result<(), $crate::storage::StorageError>>
        );
    };
    (@deletes_at_once $to:ident) => {
        $crate::storage::forward!(@@ $to deletes_at_once() -> usize);
    };
    (@settle $to:ident) => {
        $crate::storage::forward!(@@ $to
            settle(kind: $crate::storage::FileKind)
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@listing_lag $to:ident) => {
        $crate::storage::forward!(@@ $to listing_lag() -> std::time::Duration);
    };
    (@costs $to:ident) => {
        $crate::storage::forward!(@@ $to costs() -> $crate::storage::Costs);
    };
    (@local_folder $to:ident) => {
        $crate::storage::forward!(@@ $to local_folder() -> Option<&std::path::Path>);
    };
    (@holding $to:ident) => {
        $crate::storage::forward!(@@ $to
            holding()
            -> Result<$crate::storage::Holding, $crate::storage::StorageError>
        );
    };
    (@retention $to:ident) => {
        $crate::storage::forward!(@@ $to
            retention(file: $crate::storage::File)
            -> Result<$crate::storage::Retention, $crate::storage::StorageError>
        );
    };
    (@retain $to:ident) => {
        $crate::storage::forward!(@@ $to
            retain(file: $crate::storage::File, until: $crate::format::time::Timestamp)
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@archiving $to:ident) => {
        $crate::storage::forward!(@@ $to archiving() -> $crate::storage::Archiving);
    };
    (@reach $to:ident) => {
        $crate::storage::forward!(@@ $to
            reach(file: $crate::storage::File)
            -> Result<$crate::storage::Reach, $crate::storage::StorageError>
        );
    };
    (@warm_up $to:ident) => {
        $crate::storage::forward!(@@ $to
            warm_up(file: $crate::storage::File)
            -> Result<(), $crate::storage::StorageError>
        );
    };
    (@remove_leftovers $to:ident) => {
        $crate::storage::forward!(@@ $to
            remove_leftovers()
            -> Result<usize, $crate::storage::StorageError>
        );
    };
}

pub(crate) use forward;

//! Folders that go away with their test.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// An empty folder below the build folder; removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// `name` has to be the test's own: tests run beside each other.
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

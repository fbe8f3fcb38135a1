//! A tar file with its table of contents, so that entries can be read in any order and without unpacking.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::ImportError;

/// No index or manifest is larger; a larger one is not read into memory.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// An open archive.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// Offset and size of each regular file's content.
    entries: HashMap<String, (u64, u64)>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: path.to_owned(), source };
        let mut tar = tar::Archive::new(File::open(path).map_err(failed)?);
        let mut entries = HashMap::new();
        for entry in tar.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(|e| ImportError::Format(e.to_string()))?;
            if entry.header().entry_type().is_file() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        // The header says one size and the file may hold less: checked here, once, rather than at each read.
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if let Some((name, _)) = entries.iter().find(|(_, (offset, size))| offset + size > length) {
            return Err(ImportError::Format(format!("cut short inside {name}")));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|(_, size)| *size)
    }

    /// A small file, whole.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let Some(size) = self.size(name) else { return Ok(None) };
        if size > MAX_DOCUMENT {
            return Err(ImportError::Format(format!("{name} has {size} bytes")));
        }
        self.reader(name)
            .and_then(|mut reader| {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            })
            .map_err(|source| ImportError::Read { path: self.path.clone(), source })
    }

    /// A file's content as a stream.
    pub(super) fn reader(&self, name: &str) -> io::Result<io::Take<File>> {
        let (offset, size) =
            *self.entries.get(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(size))
    }
}

//! The world that a runbook runs in: where data comes from and goes to.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use muster_model::PointCopy;
use muster_plan::{
    document::{DataItem, DataSource, Service},
    template::TargetNames,
};

use super::{RunClock, supply::Supply};
use crate::{
    error::OperationError,
    postgres::{self, Server},
    state::{make_passable, make_private},
    sweep::remove_folder,
    workspace::Workspace,
};

/// A target, and how data gets there.
pub(crate) struct World<'w> {
    /// Plan and state.
    pub(crate) workspace: &'w Workspace,
    /// The service.
    pub(crate) service: &'w Service,
    /// The drill or recovery.
    pub(crate) run_id: String,
    /// `runbook`, or which negative control.
    pub(crate) part: String,
    /// The target: `{{ target.dir }}`.
    pub(crate) dir: PathBuf,
    /// Where output of processes is kept.
    pub(crate) logs: PathBuf,
    /// The clock of the run.
    pub(crate) clock: RunClock,
    /// What templates may name.
    pub(crate) names: TargetNames,
    /// Where data comes from.
    pub(crate) supply: Supply,
    /// What processes of this world do not see: production's files, where they can be hidden.
    pub(crate) hidden: Vec<PathBuf>,
    /// The item that is damaged as soon as its server runs: for a control.
    pub(crate) damage: Option<String>,
    /// Servers that were prepared as their data was made.
    prepared: BTreeMap<String, Server>,
}

impl<'w> World<'w> {
    /// A world in `dir`, which is made; output of processes goes to `logs`.
    ///
    /// # Errors
    /// Fails when the folders cannot be made.
    pub(crate) fn new(
        workspace: &'w Workspace,
        service: &'w Service,
        run_id: &str,
        part: &str,
        place: &Place,
        clock: RunClock,
        supply: Supply,
    ) -> Result<Self, OperationError> {
        let make = if needs_passage(service) { make_passable } else { make_private };
        make(&place.dir).map_err(OperationError::io("make the folder", &place.dir))?;
        make_private(&place.logs).map_err(OperationError::io("make the folder", &place.logs))?;
        let dir = fs::canonicalize(&place.dir);
        let dir = dir.map_err(OperationError::io("find the folder", &place.dir))?;
        let names = TargetNames {
            dir: dir.display().to_string(),
            port: place.port,
            url: format!("http://127.0.0.1:{}", place.port),
            ..TargetNames::default()
        };
        Ok(Self {
            workspace,
            service,
            run_id: run_id.to_owned(),
            part: part.to_owned(),
            dir,
            logs: place.logs.clone(),
            clock,
            names,
            supply,
            hidden: Vec::new(),
            damage: None,
            prepared: BTreeMap::new(),
        })
    }

    /// The same world, in which these paths are hidden from processes.
    pub(crate) fn without(self, hidden: &[PathBuf]) -> Self {
        Self { hidden: hidden.to_vec(), ..self }
    }

    /// The folder of a data item.
    pub(crate) fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The file that a process's output goes to.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        let part: String =
            self.part.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.logs.join(format!("{part}.{name}.log"))
    }

    /// A data item of the service.
    pub(crate) fn item(&self, name: &str) -> Result<&'w DataItem, OperationError> {
        self.service.data(name).ok_or_else(|| OperationError::Bug {
            what: format!("the runbook restores {name}, which does not exist"),
        })
    }

    /// Where an item's one file is when it is restored; the folder itself for files.
    pub(crate) fn data_path(&self, item: &DataItem) -> PathBuf {
        let dir = self.data_dir(&item.name);
        match &item.source {
            DataSource::Sqlite { path } => match Path::new(path).file_name() {
                Some(name) => dir.join(name),
                None => dir,
            },
            DataSource::Command { file, .. } => dir.join(file),
            DataSource::Files { .. } | DataSource::Postgres { .. } => dir,
        }
    }

    /// Whether the item needs a server to be questioned.
    pub(crate) fn has_server(&self, name: &str) -> bool {
        let item = self.service.data(name);
        item.is_some_and(|item| matches!(item.source, DataSource::Postgres { .. }))
    }

    /// The server that an item needs; to be launched once its data is there.
    pub(crate) fn server_of(&mut self, name: &str) -> Result<Option<Server>, OperationError> {
        if let Some(server) = self.prepared.remove(name) {
            return Ok(Some(server));
        }
        let item = self.item(name)?;
        match &item.source {
            DataSource::Postgres { .. } => Server::prepare(self, item).map(Some),
            _ => Ok(None),
        }
    }

    /// Makes a data item that is an empty server.
    pub(crate) fn make_empty_server(&mut self, name: &str) -> Result<(), OperationError> {
        let server = postgres::make_empty(self, self.item(name)?)?;
        self.prepared.insert(name.to_owned(), server);
        Ok(())
    }

    /// Removes what a restore of this item left.
    pub(crate) fn remove_data(&self, name: &str) -> Result<(), OperationError> {
        let beside = match self.has_server(name) {
            true => postgres::folders_beside(self, name),
            false => Vec::new(),
        };
        for dir in beside.into_iter().chain([self.data_dir(name)]) {
            remove_folder(&dir).map_err(OperationError::io("remove", &dir))?;
        }
        Ok(())
    }

    /// The copy by which an empty server of this item is modelled.
    pub(crate) fn model_of(&self, name: &str) -> Result<PointCopy, OperationError> {
        let used = match &self.supply {
            Supply::Empty(used) => used.iter().find(|used| used.data == name),
            _ => None,
        };
        let used = used.ok_or_else(|| OperationError::Bug {
            what: format!("no point tells what {name} is like"),
        })?;
        Ok(PointCopy {
            repository: used.repository.clone(),
            place: muster_model::Place::default(),
            immutable: false,
            immutable_until: None,
            snapshot: used.snapshot.clone(),
            damaged: false,
        })
    }
}

/// Whether somebody else than us must reach the target: root may not run a server, so another
/// user does.
pub(crate) fn needs_passage(service: &Service) -> bool {
    let has_server = |item: &DataItem| matches!(item.source, DataSource::Postgres { .. });
    rustix::process::geteuid().is_root() && service.data.iter().any(has_server)
}

/// Folders and a port for a world.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The target.
    pub(crate) dir: PathBuf,
    /// Output of processes.
    pub(crate) logs: PathBuf,
    /// The service's port.
    pub(crate) port: u16,
}

/// Whether a folder has nothing in it, or is not there.
pub(crate) fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

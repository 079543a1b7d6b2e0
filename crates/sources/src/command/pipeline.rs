//! Running the stages of a pipeline, and seeing how each ended.

use std::{
    collections::VecDeque,
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use std::os::unix::process::CommandExt;

use muster_repository::run::{Cancel, Run};
use rustix::process::{Pid, Signal, kill_process_group};

use super::CommandError;

/// Variables that every program may expect.
const USUAL_VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_NUMERIC",
    "LC_TIME",
];

/// How many of a stage's last words are kept, and how long each line may be.
const LAST_LINES: usize = 5;
const LINE_BYTES_MAX: u64 = 400;

/// How often is looked whether the run was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the last words of a stage are waited for that has ended: a process that it left
/// behind may hold them open for ever.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(2);

/// A stage that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageFailure {
    /// Its program.
    pub program: String,
    /// How it ended.
    pub ended: String,
    /// The last lines that it wrote to standard error.
    pub last_words: Vec<String>,
}

impl fmt::Display for StageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ended with {}", self.program, self.ended)?;
        if !self.last_words.is_empty() {
            write!(f, " and said: {}", self.last_words.join(" / "))?;
        }
        Ok(())
    }
}

/// Stages at work. Dropped, it kills them.
pub(super) struct Pipeline {
    stages: Vec<Stage>,
    /// Ends the watch when dropped.
    _watch: Sender<()>,
}

struct Stage {
    program: String,
    child: Child,
    last_words: Receiver<Vec<String>>,
}

impl Pipeline {
    /// Starts the stages; gives what the last one prints as well.
    ///
    /// # Errors
    /// Fails when one cannot be started; those before it are killed.
    pub(super) fn start(
        stages: &[&[String]],
        env: &[String],
        run: &Run,
    ) -> Result<(Self, Box<dyn Read + Send>), CommandError> {
        let (watch, watched) = mpsc::channel();
        let mut pipeline = Self { stages: Vec::new(), _watch: watch };
        let mut output: Option<ChildStdout> = None;
        for stage in stages {
            let input = output.take().map_or_else(Stdio::null, Stdio::from);
            output = Some(pipeline.start_stage(stage, env, input)?);
        }
        let groups: Vec<_> = pipeline.stages.iter().map(Stage::group).collect();
        let cancel = run.cancel.clone();
        thread::spawn(move || watch_cancel(&cancel, &groups, &watched));
        let content: Box<dyn Read + Send> = match output {
            Some(output) => Box::new(output),
            None => Box::new(std::io::empty()),
        };
        Ok((pipeline, content))
    }

    fn start_stage(
        &mut self,
        stage: &[String],
        env: &[String],
        input: Stdio,
    ) -> Result<ChildStdout, CommandError> {
        let program = stage[0].clone();
        let names = USUAL_VARIABLES.iter().copied().chain(env.iter().map(String::as_str));
        let variables = names.filter_map(|name| Some((name, std::env::var_os(name)?)));
        let spawned = Command::new(&program)
            .args(&stage[1..])
            .env_clear()
            .envs(variables)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child =
            spawned.map_err(|source| CommandError::Start { program: program.clone(), source })?;
        let output = child.stdout.take().expect("its output was asked to be a pipe");
        let errors = child.stderr.take().expect("its errors were asked to be a pipe");
        let (tell, last_words) = mpsc::channel();
        // Nobody may be waiting any more.
        thread::spawn(move || drop(tell.send(last_lines(errors))));
        self.stages.push(Stage { program, child, last_words });
        Ok(output)
    }

    /// Waits for all stages; gives those that failed.
    pub(super) fn finish(mut self) -> Vec<StageFailure> {
        self.stages.iter_mut().filter_map(Stage::finish).collect()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        for stage in &mut self.stages {
            // One that was waited for is gone, and its number may be another's by now.
            if let Ok(None) = stage.child.try_wait() {
                kill_group(stage.group());
                drop(stage.child.wait());
            }
        }
    }
}

impl Stage {
    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn finish(&mut self) -> Option<StageFailure> {
        let ended = match self.child.wait() {
            Ok(status) if status.success() => return None,
            Ok(status) => shown(status),
            Err(error) => format!("no trace: {error}"),
        };
        let last_words = self.last_words.recv_timeout(LAST_WORDS_WAIT).unwrap_or_default();
        Some(StageFailure { program: self.program.clone(), ended, last_words })
    }
}

fn shown(status: ExitStatus) -> String {
    // "exit status: 1", "signal: 9 (SIGKILL)"
    status.to_string().replace(": ", " ")
}

/// Kills the groups when the run is cancelled, until the pipeline is gone.
fn watch_cancel(cancel: &Cancel, groups: &[Option<Pid>], watched: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = watched.recv_timeout(LOOK_EVERY) {
        if cancel.is_requested() {
            groups.iter().copied().for_each(kill_group);
            return;
        }
    }
}

fn kill_group(group: Option<Pid>) {
    if let Some(group) = group {
        // It may have ended by itself.
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// Reads to the end and keeps the last lines.
fn last_lines(errors: ChildStderr) -> Vec<String> {
    let mut lines = VecDeque::new();
    let mut reader = BufReader::new(errors);
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        if !text.is_empty() {
            lines.push_back(text);
        }
        if lines.len() > LAST_LINES {
            lines.pop_front();
        }
    }
}

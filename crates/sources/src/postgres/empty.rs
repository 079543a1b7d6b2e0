//! A server like the original with nothing in it: a negative control. A probe that is green on it
//! asks for nothing.

use std::{fs, path::Path, time::Duration};

use muster_repository::run::Run;

use super::{
    PostgresError,
    cluster::Cluster,
    programs::{Programs, Task},
    restore::{own, private},
    run_as,
    server::{Launch, launch, make_server_folder},
};

/// How long a program may take to make it.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Makes an empty server like `cluster` in `data`, which must be empty or not exist, and says how
/// to start it: of the same version, with databases and login roles of the same names, so that a
/// probe connects and finds nothing. `user` is as for [`super::restore_into`].
///
/// # Errors
/// Fails when no programs of the version are installed, no user can run it, the folder cannot be
/// written, or the run is cancelled.
pub fn empty_like(
    programs: &Programs,
    cluster: &Cluster,
    data: &Path,
    port: u16,
    user: Option<&str>,
    run: &Run,
) -> Result<Launch, PostgresError> {
    let data = std::path::absolute(data).map_err(PostgresError::file("find", data))?;
    let user = run_as::choose(user, cluster.owner.as_deref())?;
    run_as::may_reach(user.as_ref(), &data)?;
    fs::create_dir_all(&data).map_err(PostgresError::file("make", &data))?;
    private(&data)?;
    own(&data, user.as_ref())?;
    let server = make_server_folder(&data)?;
    let superuser = match cluster.superuser.as_str() {
        "" => "postgres",
        name => name,
    };
    let encoding = cluster.databases.get(&cluster.database).map_or("UTF8", String::as_str);
    let arguments = ["-D", &data.display().to_string(), "-U", superuser, "-E", encoding];
    let arguments = arguments.into_iter().chain(["--locale=C", "--auth=trust", "--no-sync"]);
    let task = Task {
        program: "initdb",
        path: programs.program("initdb"),
        arguments: arguments.map(str::to_owned).collect(),
        input: None,
        log: server.join("initdb.log"),
        user: user.as_ref(),
        timeout: TIMEOUT,
    };
    task.run(run)?;
    let script = server.join("roles-and-databases.sql");
    fs::write(&script, statements(cluster, superuser))
        .map_err(PostgresError::file("write", &script))?;
    let task = Task {
        program: "postgres",
        path: programs.program("postgres"),
        arguments: ["--single", "-D", &data.display().to_string(), "template1"]
            .map(str::to_owned)
            .to_vec(),
        input: Some(&script),
        log: server.join("single.log"),
        ..task
    };
    task.run(run)?;
    launch(&data, port, cluster, programs, user)
}

/// One statement a line, as a server that runs alone reads them.
fn statements(cluster: &Cluster, superuser: &str) -> String {
    let given = ["postgres", "template0", "template1"];
    let roles = cluster.login_roles.iter().chain([&cluster.role]);
    let mut roles: Vec<_> = roles.filter(|role| *role != superuser && is_one_line(role)).collect();
    roles.sort_unstable();
    roles.dedup();
    let roles = roles.into_iter().map(|role| format!("create role {} login;\n", quoted(role)));
    let databases = cluster.databases.iter();
    let databases = databases.filter(|(name, _)| !given.contains(&name.as_str()));
    let databases = databases.filter(|(name, encoding)| is_one_line(name) && is_one_line(encoding));
    let databases = databases.map(|(name, encoding)| {
        format!(
            "create database {} template template0 encoding '{}' lc_collate 'C' lc_ctype 'C';\n",
            quoted(name),
            encoding.replace('\'', "''")
        )
    });
    roles.chain(databases).collect()
}

fn is_one_line(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

//! Who an image's `USER` is, by the image's own `/etc/passwd` and `/etc/group`.

use super::inroot::open_in_root;
use std::{io::Read, path::Path};

/// Numbers a process runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<String>,
}

/// Largest `passwd` or `group` file read: beyond it the image is broken or hostile.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `user` is empty, a name or number, or `user:group`.
pub(crate) fn resolve(root: &Path, user: &str) -> Result<Ids, String> {
    let read = |name| {
        let mut text = String::new();
        if let Ok(fd) = open_in_root(root, Path::new(name), libc::O_RDONLY) {
            let _ = std::fs::File::from(fd).take(FILE_BYTES_MAX).read_to_string(&mut text);
        }
        text
    };
    resolve_in(&read("etc/passwd"), &read("etc/group"), user)
}

fn resolve_in(passwd: &str, groups: &str, user: &str) -> Result<Ids, String> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6
            && (fields[0] == user || (number.is_some() && fields[2].parse().ok() == number))
    });
    let (name, uid, default_gid, home) = match (&entry, number) {
        (Some(fields), _) => (
            fields[0].to_string(),
            fields[2].parse().map_err(|_| format!("bad uid of user {user}"))?,
            fields[3].parse().unwrap_or_default(),
            Some(fields[5].to_string()),
        ),
        (None, Some(uid)) => (String::new(), uid, 0, None),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let rows = || groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid = match group {
        None => default_gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => rows()
                .find(|fields| fields[0] == group)
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| format!("unable to find group {group}"))?,
        },
    };
    let member = |fields: &Vec<&str>| {
        !name.is_empty() && fields.get(3).is_some_and(|list| list.split(',').any(|m| m == name))
    };
    let extra = rows().filter(member).filter_map(|fields| fields[2].parse().ok());
    Ok(Ids { uid, gid, groups: extra.filter(|extra| *extra != gid).collect(), home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:web,other\nlogs:x:60:\n";

    #[test]
    fn names_numbers_and_groups() {
        let check = |user: &str| resolve_in(PASSWD, GROUP, user);
        let web = Ids { uid: 33, gid: 34, groups: vec![50], home: Some("/srv".into()) };
        assert_eq!(check("web"), Ok(web.clone()));
        assert_eq!(check("33"), Ok(web.clone()));
        assert_eq!(check("web:logs"), Ok(Ids { gid: 60, ..web }));
        assert_eq!(check("1000:5"), Ok(Ids { uid: 1000, gid: 5, groups: vec![], home: None }));
        assert_eq!(check("").unwrap().home.as_deref(), Some("/root"));
        assert!(check("nobody").unwrap_err().contains("unable to find user nobody"));
    }
}

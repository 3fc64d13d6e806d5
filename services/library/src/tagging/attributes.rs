//! What a file has beside its bytes: owner, permissions, access control list, extended attributes.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, fchown},
    },
    path::Path,
};

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr},
    io::Errno,
};

/// Where Linux keeps the access control list of POSIX.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// Digests of a file's bytes or of its inode, which the kernel keeps itself.
const OF_THE_KERNEL: [&str; 2] = ["security.ima", "security.evm"];
/// Linux keeps at most 64 KiB under a name, other systems more.
const FIRST_ROOM: usize = 64 << 10;
const MAX_ROOM: usize = 64 << 20;

/// Gives the file `to`, which nobody else may read yet, what the one at `from` has beside its bytes. The owner and the group
/// stay those of this user where the system does not let them be given away.
///
/// # Errors
/// If an extended attribute or the access control list would be lost. What the file system does not support is not.
pub(super) fn copy(from: &Path, old: &Metadata, to: &File) -> io::Result<()> {
    // Only root can give files away; a group may be one of the user's own.
    let _ = fchown(to, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(to, None, Some(old.gid())));
    let names = names(|room| listxattr(from, room))?;
    let own = names.iter().map(OsStr::new).filter(|name| *name != ACCESS_LIST);
    // A file that is read-only takes no attributes.
    for name in own.filter(|name| OF_THE_KERNEL.iter().all(|other| name != other)) {
        copy_attribute(from, to, name).map_err(|error| lost(name, error))?;
    }
    to.set_permissions(old.permissions())?;
    // The list has the permissions in it, too.
    let name = OsStr::new(ACCESS_LIST);
    if names.iter().any(|other| other == ACCESS_LIST) {
        return copy_attribute(from, to, name).map_err(|error| lost(name, error));
    }
    // A folder may give new files a list that the old one had not.
    match fremovexattr(to, name) {
        Err(error) if is_one_there(to)? => Err(lost(name, error)),
        _ => Ok(()),
    }
}

fn copy_attribute(from: &Path, to: &File, name: &OsStr) -> rustix::io::Result<()> {
    let copied = whole(|room| getxattr(from, name, room)).and_then(|value| {
        // Labels that the system gives to every file are mostly the same, and not everybody may set them.
        let is_there = whole(|room| fgetxattr(to, name, room)).is_ok_and(|other| other == value);
        if is_there { Ok(()) } else { fsetxattr(to, name, &value, XattrFlags::empty()) }
    });
    if is_unsupported(copied) { Ok(()) } else { copied }
}

fn is_one_there(file: &File) -> io::Result<bool> {
    Ok(names(|room| flistxattr(file, room))?.iter().any(|name| name == ACCESS_LIST))
}

/// The names of attributes; none on a file system without them.
fn names(list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<std::ffi::OsString>> {
    let listed = whole(list);
    let listed =
        if is_unsupported(listed.as_ref().map(drop).map_err(|error| *error)) { Ok(Vec::new()) } else { listed };
    let bytes = listed.map_err(|error| io::Error::other(format!("its extended attributes cannot be read: {error}")))?;
    let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
}

/// All that `read` puts into a buffer that is large enough.
fn whole(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut room = FIRST_ROOM;
    loop {
        let mut bytes = vec![0; room];
        match read(&mut bytes) {
            Err(Errno::RANGE) if room < MAX_ROOM => room *= 2,
            length => {
                bytes.truncate(length?);
                return Ok(bytes);
            }
        }
    }
}

fn is_unsupported(outcome: rustix::io::Result<()>) -> bool {
    // One number on Linux, two elsewhere.
    [Errno::NOTSUP, Errno::OPNOTSUPP].map(Err).contains(&outcome)
}

fn lost(name: &OsStr, error: Errno) -> io::Error {
    io::Error::new(error.kind(), format!("its attribute {} would be lost: {error}", name.display()))
}

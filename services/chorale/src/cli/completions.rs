//! The arguments of `chorale completions`.

use clap::Args;
use clap_complete::Shell;

pub(crate) const EXAMPLES: &str = "\
Examples, for your account; the next shell that you open completes commands, flags and files:
  chorale completions bash > ~/.local/share/bash-completion/completions/chorale
  chorale completions zsh > ~/.zfunc/_chorale             with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  chorale completions fish > ~/.config/fish/completions/chorale.fish
  chorale completions elvish > ~/.config/elvish/lib/chorale.elv   with `use chorale` in ~/.config/elvish/rc.elv
  chorale completions powershell >> $PROFILE

Make the folder first if it is not there. After an update of Chorale, do the same again.";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell that is to complete the command line of `chorale`
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

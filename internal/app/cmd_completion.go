package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const completionUsage = `Usage: co2relay completion bash|zsh|fish

Prints a script that has the shell complete commands and flags:

  bash  source <(co2relay completion bash)
  zsh   source <(co2relay completion zsh)
  fish  co2relay completion fish | source

Exit codes: 0 printed; 2 wrong use.`

// completionScripts take the commands; flags they find out by --help, so that
// they are never out of date.
var completionScripts = map[string]string{
	"bash": `_co2relay() {
	local cur=${COMP_WORDS[COMP_CWORD]}
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "@NAMES@" -- "$cur"))
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${COMP_WORDS[1]}" --help 2>/dev/null | grep -oE -- '^ +(-., )?--[a-z][a-z0-9-]*' | grep -oE -- '--.*')" -- "$cur"))
	elif [ "${COMP_WORDS[1]}" = completion ]; then
		COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur"))
	else
		COMPREPLY=($(compgen -f -- "$cur"))
	fi
}
complete -o filenames -F _co2relay co2relay
`,
	"zsh": `_co2relay() {
	local -a found
	if (( CURRENT == 2 )); then
		found=(
@LINES@		)
		_describe command found
	elif [[ $words[CURRENT] == -* ]]; then
		found=(${(f)"$($words[1] $words[2] --help 2>/dev/null | grep -oE -- '^ +(-., )?--[a-z][a-z0-9-]*' | grep -oE -- '--.*')"})
		compadd -a found
	elif [[ $words[2] == completion ]]; then
		compadd bash zsh fish
	else
		_files
	fi
}
compdef _co2relay co2relay
`,
	"fish": `complete -c co2relay -n __fish_use_subcommand -f
@LINES@complete -c co2relay -n 'not __fish_use_subcommand' -a '(set -l w (commandline -opc); $w[1] $w[2] --help 2>/dev/null | string match -rg -- "^ +(?:-., )?(--[a-z][a-z0-9-]*)")'
complete -c co2relay -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'
`,
}

func completionCommand(_ context.Context, args []string, std streams) int {
	f := newFlagSet("completion", completionUsage)
	err := f.parse(args)
	if err == nil && f.NArg() != 1 {
		err = errors.New("name one shell: bash, zsh or fish")
	}
	script, known := completionScripts[f.Arg(0)]
	if err == nil && !known {
		err = fmt.Errorf("%q is not one of bash, zsh, fish", f.Arg(0))
	}
	if err != nil {
		return usageFault(std, f, err)
	}
	var names []string
	var lines strings.Builder
	for _, c := range commands() {
		names = append(names, c.name)
		does := strings.ReplaceAll(c.does, "'", "")
		if f.Arg(0) == "fish" {
			fmt.Fprintf(&lines, "complete -c co2relay -n __fish_use_subcommand -a %s -d '%s'\n", c.name, does)
		} else {
			fmt.Fprintf(&lines, "\t\t\t'%s:%s'\n", c.name, strings.ReplaceAll(does, ":", `\:`))
		}
	}
	fmt.Fprint(std.out, strings.NewReplacer("@NAMES@", strings.Join(names, " "), "@LINES@", lines.String()).Replace(script))
	return ExitOK
}

# shellcheck shell=bash
# Completion of inv and rolling-upgrade for bash: source it from ~/.bashrc. Environments and hosts are completed too.
_rolling_inv() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" found=""
    # Bash treats = as a separate word.
    if [ "$word" = "=" ]; then word=""; elif [ "$before" = "=" ]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi
    case "$before" in
        --env|--environment|-e|--from) found=$("${COMP_WORDS[0]}" completion --names environments 2>/dev/null) ;;
        # With other tasks, --to names a release or a directory.
        --to)
            case " ${COMP_WORDS[*]} " in
                *" promote "*) found=$("${COMP_WORDS[0]}" completion --names environments 2>/dev/null) ;;
            esac
            ;;
        --host|--hosts) found=$("${COMP_WORDS[0]}" completion --names hosts 2>/dev/null) ;;
        *) found=$("${COMP_WORDS[0]}" --complete -- "${COMP_WORDS[*]}" 2>/dev/null) ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$found" -- "$word")
}
complete -F _rolling_inv -o default inv invoke rolling-upgrade

# Completion of inv and rolling-upgrade for zsh: source it from ~/.zshrc, after compinit. Environments and hosts are completed too.
_rolling_inv() {
    local -a found
    case "${words[CURRENT-1]}" in
        --env|--environment|-e|--from) found=(${(f)"$(${words[1]} completion --names environments 2>/dev/null)"}) ;;
        --to) (( ${words[(Ie)promote]} )) && found=(${(f)"$(${words[1]} completion --names environments 2>/dev/null)"}) ;;
        --host|--hosts) found=(${(f)"$(${words[1]} completion --names hosts 2>/dev/null)"}) ;;
        *) found=(${(f)"$(${words[1]} --complete -- "${words[*]}" 2>/dev/null)"}) ;;
    esac
    compadd -a found
}
compdef _rolling_inv inv invoke rolling-upgrade

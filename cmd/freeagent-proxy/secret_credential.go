package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// systemd reads secrets as root and passes them to the program that it starts as files in a folder that nobody else can
// read (systemd.exec(5), LoadCredential=). A setting that names a file may name such a credential instead: credential:NAME.

const (
	credentialPrefix = "credential:"
	credentialFolder = "CREDENTIALS_DIRECTORY"
)

// credentialPath is the file of a credential. Its errors do not repeat the name: it may be the secret itself.
func credentialPath(name string, getenv func(string) string) (string, error) {
	folder := getenv(credentialFolder)
	path := filepath.Join(folder, name)
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`):
		return "", errors.New("behind credential: comes a name without a slash, the one that LoadCredential= in systemd's unit begins with")
	case folder == "":
		return "", errors.New("systemd has passed no credentials to this process; add LoadCredential=NAME:/path to its unit, or name a file by its path")
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("systemd has passed no credential of this name; add LoadCredential=NAME:/path to the unit")
	}
	return path, nil
}

// credential is a secret that systemd has passed under that name, if it has.
func credential(name string, getenv func(string) string) (Secret, error) {
	path, err := credentialPath(name, getenv)
	if err != nil {
		return Secret{}, nil
	}
	secret, _, err := secretFromFile(path)
	return secret, err
}

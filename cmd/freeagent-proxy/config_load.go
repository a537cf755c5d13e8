package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// configVariable names the configuration file where no --config does.
const configVariable = "FREEAGENT_PROXY_CONFIG"

// loadConfig reads the configuration from the file at path. If path is empty it is
// $FREEAGENT_PROXY_CONFIG, else ./config.yaml if there is one, else the environment alone, see
// fromEnvironment. What is wrong with the configuration itself is a *configError: all of it. With that comes what could be read; a
// setting with a mistake is as it is by default.
func loadConfig(path string, getenv func(string) string) (Config, error) {
	if path == "" {
		path = configPath(getenv)
	}
	if path == "" {
		return fromEnvironment(getenv)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return fromFile(path, data, getenv)
}

// pinConfig reads the configuration from where it is now, whenever it is called: a config.yaml that appears later does not
// replace the environment.
func (c *command) pinConfig() (load func() (Config, error)) {
	path := c.configPath
	if path == "" {
		path = configPath(c.getenv)
	}
	if path == "" {
		return func() (Config, error) { return fromEnvironment(c.getenv) }
	}
	return func() (Config, error) { return loadConfig(path, c.getenv) }
}

func configPath(getenv func(string) string) string {
	if path := getenv(configVariable); path != "" {
		return path
	}
	const usual = "config.yaml"
	if _, err := os.Stat(usual); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return usual
}

// fromFile makes the configuration of a file's text.
func fromFile(path string, data []byte, getenv func(string) string) (Config, error) {
	d := &decoder{
		problems: &problems{file: path, lines: map[string]int{}},
		getenv:   getenv,
		folder:   filepath.Dir(path),
	}
	c := defaultConfig(getenv)
	if !d.decodeFile(data, &c) {
		return c, d.err()
	}
	if c.Store.Redis.given() {
		if d.lines["store.file"] > 0 {
			d.add("store.file", "grants are kept in store.redis already; keep one of the two")
		}
		c.Store.File = ""
	}
	for key, path := range map[string]*string{
		"tls.cert": &c.TLS.Cert, "tls.key": &c.TLS.Key, "tls.client_ca": &c.TLS.ClientCA,
		"store.redis.tls.ca": &c.Store.Redis.TLS.CA, "store.redis.tls.cert": &c.Store.Redis.TLS.Cert, "store.redis.tls.key": &c.Store.Redis.TLS.Key,
	} {
		var err error
		if *path, err = d.place(*path); err != nil {
			d.add(key, "%s", err)
		}
	}
	c.Store.File, c.Store.Redis.Backup = d.absolute(c.Store.File), d.absolute(c.Store.Redis.Backup)
	for i, address := range c.Listen {
		if socket, ok := strings.CutPrefix(address, unixPrefix); ok {
			c.Listen[i] = unixPrefix + d.absolute(socket)
		}
	}
	for name, client := range c.Clients {
		if socket, ok := strings.CutPrefix(client.Listen, unixPrefix); ok {
			client.Listen = unixPrefix + d.absolute(socket)
			c.Clients[name] = client
		}
	}
	slices.Sort(d.variables)
	c.Variables = d.variables
	return c.finish(d.problems)
}

// fromEnvironment makes a configuration without a file: one app and one account, both named
// default, everything else as it is by default.
func fromEnvironment(getenv func(string) string) (Config, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	c := defaultConfig(getenv)
	p := &problems{variables: map[string]string{
		"apps.default.client_id":         "FREEAGENT_CLIENT_ID",
		"apps.default.client_secret_env": "FREEAGENT_CLIENT_SECRET",
		"upstream.base_url":              "FREEAGENT_BASE_URL",
		"store.file":                     "STATE_DIRECTORY",
	}}
	secret := func(name string) Secret {
		if text := get(name); text != "" {
			c.Variables = append(c.Variables, name)
			return newSecret(text)
		}
		found, err := credential(name, getenv)
		if err != nil {
			p.add(name, "%s", err)
		}
		return found
	}
	app := AppConfig{ClientID: get("FREEAGENT_CLIENT_ID"), ClientSecret: secret("FREEAGENT_CLIENT_SECRET")}
	const remedy = "not set; register an app at https://dev.freeagent.com and set this to its %s, or write a config.yaml"
	if app.ClientID == "" {
		p.add("apps.default.client_id", remedy, "OAuth identifier")
	}
	if app.ClientSecret.Reveal() == "" {
		p.add("apps.default.client_secret_env", remedy, "OAuth secret")
	}
	if base := get("FREEAGENT_BASE_URL"); base != "" {
		u, err := parseURL(base)
		if err != nil {
			p.add("upstream.base_url", "%s", err)
		} else {
			c.Upstream.BaseURL = u
		}
	}
	c.Apps = map[string]AppConfig{"default": app}
	c.Accounts = map[string]AccountConfig{"default": {App: "default", Default: true}}
	c.Seed = secret("FREEAGENT_REFRESH_TOKEN")
	return c.finish(p)
}

// finish gives the configuration, and all that is wrong with it.
func (c Config) finish(p *problems) (Config, error) {
	c.validate(p)
	if err := p.err(); err != nil {
		return c, err
	}
	c.Notes = p.notes
	return c, nil
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// expirySoon is how long before its end a certificate is worth a word.
const expirySoon = 14 * 24 * time.Hour

// given reports whether programs reach us by TLS.
func (c ServerTLSConfig) given() bool { return c != ServerTLSConfig{} }

// load reads the files. key is the setting that an error is about; the errors are sentences for whoever wrote it.
func (c ServerTLSConfig) load() (config *tls.Config, key string, err error) {
	cert, err := os.ReadFile(c.Cert)
	if err != nil {
		return nil, "cert", err
	}
	private, err := os.ReadFile(c.Key)
	if err != nil {
		return nil, "key", err
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return nil, "cert", fmt.Errorf("cert and key do not make a server's certificate: %w", err)
	}
	config = &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.ClientCA == "" {
		return config, "", nil
	}
	authorities, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, "client_ca", err
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, "client_ca", errors.New("the file holds no certificate in PEM form")
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, "", nil
}

// validateTLS reports what cannot be used, and a certificate that ends soon.
func (c Config) validateTLS(p *problems) {
	switch {
	case !c.TLS.given():
		return
	case c.TLS.Cert == "":
		p.add("tls.cert", "missing: the file with the proxy's certificate, in PEM form")
		return
	case c.TLS.Key == "":
		p.add("tls.key", "missing: the file with the key of tls.cert, in PEM form")
		return
	}
	config, key, err := c.TLS.load()
	if err != nil {
		p.add("tls."+key, "%s", err)
		return
	}
	noteEnd(p, "tls.cert", "the certificate", config.Certificates[0].Leaf)
	if c.TLS.ClientCA != "" {
		noteEnds(p, "tls.client_ca", "a certificate in it", c.TLS.ClientCA)
	}
	if info, err := os.Stat(c.TLS.Key); err == nil && openToAll(info) {
		p.note("tls.key", "every user of this machine may read the file; chmod 600 keeps them out")
	}
}

// noteEnd warns of a certificate that has ended, or ends soon.
func noteEnd(p *problems, key, what string, certificate *x509.Certificate) {
	switch end := certificate.NotAfter; {
	case time.Now().After(end):
		p.note(key, "%s has ended, on %s; put a new one in its place", what, end.Format(time.DateOnly))
	case time.Until(end) < expirySoon:
		p.note(key, "%s ends on %s; put a new one in its place before", what, end.Format(time.DateOnly))
	}
}

// noteEnds does so for all in a file in PEM form. What is wrong with the file has been said.
func noteEnds(p *problems, key, what, path string) {
	rest, err := os.ReadFile(path)
	for err == nil {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return
		}
		if certificate, unread := x509.ParseCertificate(block.Bytes); unread == nil {
			noteEnd(p, key, what, certificate)
		}
	}
}

// reloadEvery is how often, at most, the files are looked at: when a client connects.
const reloadEvery = time.Second

// certificates are what we show, and whose we trust, read anew when a file has changed. A file that cannot be used
// changes nothing.
type certificates struct {
	log *zap.Logger

	mu      sync.Mutex
	files   ServerTLSConfig
	current *tls.Config
	seen    [3]os.FileInfo // of what was read last, whether it could be used or not
	looked  time.Time
}

// newCertificates reads the files. Without TLS there are none: nil.
func newCertificates(files ServerTLSConfig, log *zap.Logger) (*certificates, error) {
	if !files.given() {
		return nil, nil
	}
	c := &certificates{files: files, log: log, seen: files.stat(), looked: time.Now()}
	config, key, err := files.load()
	if err != nil {
		return nil, fmt.Errorf("tls.%s: %w", key, err)
	}
	c.current = config
	return c, nil
}

// config asks for the current files at each handshake.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.latest(), nil },
	}
}

// use reads the files anew now, of which the configuration may name others since. If they cannot be used nothing changes.
func (c *certificates) use(files ServerTLSConfig) (changed bool, err error) {
	if c == nil {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := files.stat()
	config, key, err := files.load()
	if err != nil {
		return false, fmt.Errorf("tls.%s: %w", key, err)
	}
	changed = !sameFiles(now, c.seen)
	c.files, c.current, c.seen, c.looked = files, config, now, time.Now()
	return changed, nil
}

func (c *certificates) latest() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < reloadEvery {
		return c.current
	}
	c.looked = time.Now()
	now := c.files.stat() // before they are read, so that what changes meanwhile is seen the next time
	if sameFiles(now, c.seen) {
		return c.current
	}
	c.seen = now
	config, key, err := c.files.load()
	if err != nil {
		c.log.Error("changed TLS files cannot be used, the former ones serve on; put cert, key and client_ca in order, no restart is needed",
			zap.String("setting", "tls."+key), zap.Error(err))
		return c.current
	}
	c.current = config
	c.log.Info("changed TLS files are in use", zap.Time("certificate_ends", config.Certificates[0].Leaf.NotAfter))
	return c.current
}

// end is when the certificate that is shown ends; zero: there is none.
func (c *certificates) end() time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.latest().Certificates[0].Leaf.NotAfter
}

// stat looks at the files; one that is missing is nil.
func (c ServerTLSConfig) stat() (infos [3]os.FileInfo) {
	for i, path := range []string{c.Cert, c.Key, c.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			infos[i] = info
		}
	}
	return infos
}

func sameFiles(a, b [3]os.FileInfo) bool {
	for i := range a {
		switch {
		case a[i] == nil && b[i] == nil:
		case a[i] == nil || b[i] == nil, !os.SameFile(a[i], b[i]), !a[i].ModTime().Equal(b[i].ModTime()), a[i].Size() != b[i].Size():
			return false
		}
	}
	return true
}

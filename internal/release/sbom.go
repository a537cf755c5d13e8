package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// A bill is a CycloneDX document (https://cyclonedx.org/docs/1.6/json/), as far as we fill one. The usual tool for Go,
// cyclonedx-gomod, would bring git and a dozen modules of its own into go.mod; what it reads stands in the binary.
type bill struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Serial      string      `json:"serialNumber"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
	// Dependencies says that the program needs all of them; which of them needs which is not in a binary.
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"` // application or library
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	Purl       string     `json:"purl,omitempty"` // https://github.com/package-url/purl-spec
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// sbom lists what is in a binary: each module with its version and its checksum in go.sum, and the standard library.
func sbom(binary []byte, o options, goos, goarch string) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read what the binary is made of: %w", err)
	}
	digest := sha256.Sum256(binary)
	ours := component{
		Ref: "pkg:generic/" + name + "@" + url.PathEscape(o.version), Type: "application", Name: name, Version: o.version,
		Hashes:     []hash{{"SHA-256", hex.EncodeToString(digest[:])}},
		Licenses:   make([]license, 1),
		Properties: []property{{"commit", o.commit}, {"platform", goos + "/" + goarch}},
	}
	ours.Licenses[0].License.ID = "Apache-2.0"
	ours.Purl = ours.Ref
	components := []component{library("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		components = append(components, library(m.Path, m.Version, m.Sum))
	}
	all := dependency{Ref: ours.Ref}
	for _, c := range components {
		all.DependsOn = append(all.DependsOn, c.Ref)
	}
	text, err := json.MarshalIndent(bill{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1, Serial: "urn:uuid:" + uuid(digest),
		Metadata:   metadata{o.made.Format(time.RFC3339), ours},
		Components: components, Dependencies: []dependency{all},
	}, "", "  ")
	return append(text, '\n'), err
}

// library is a Go module. In package URLs their names are lower case.
func library(path, version, sum string) component {
	ref := "pkg:golang/" + strings.ToLower(path) + "@" + url.QueryEscape(version)
	c := component{Ref: ref, Type: "library", Name: path, Version: version, Purl: ref}
	if sum != "" {
		c.Properties = []property{{"go.sum", sum}}
	}
	return c
}

// uuid makes one of a digest: version 8 of RFC 9562, which is for such uses. It is the same when the release is built again.
func uuid(digest [sha256.Size]byte) string {
	id := digest[:16]
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

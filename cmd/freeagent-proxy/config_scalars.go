package main

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// What one YAML value means. Each function's error is a sentence for whoever wrote the value.

func parseText(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, nil // an id of digits is meant as it is written
	}
	return "", fmt.Errorf("must be text, not %s", nodeKind(n))
}

// parseSecret takes a text that may hold a secret, and need not.
func parseSecret(n ast.Node) (Secret, error) {
	text, err := parseText(n)
	return newSecret(text), err
}

func parseReplicas(n ast.Node) (replicas, error) {
	if text, err := parseText(n); err == nil && text == "auto" {
		return 0, nil
	}
	value, err := parseNumber(n)
	if err != nil || value < 1 {
		return 0, errors.New("must be auto or a number from 1")
	}
	return replicas(value), nil
}

func parseBool(n ast.Node) (bool, error) {
	if n, ok := n.(*ast.BoolNode); ok {
		return n.Value, nil
	}
	return false, fmt.Errorf("must be true or false, without quotes, not %s", nodeKind(n))
}

func parseNumber(n ast.Node) (int, error) {
	if _, ok := n.(*ast.IntegerNode); !ok {
		return 0, fmt.Errorf("must be a whole number such as 120, without quotes, not %s", nodeKind(n))
	}
	value, err := strconv.Atoi(n.GetToken().Value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number such as 120", n.GetToken().Value)
	}
	return value, nil
}

func parseFraction(n ast.Node) (float64, error) {
	text, err := parseText(n)
	value, notNumber := strconv.ParseFloat(text, 64)
	if _, quoted := n.(*ast.StringNode); err != nil || notNumber != nil || quoted {
		return 0, errors.New("must be a number such as 0.8, without quotes")
	}
	return value, nil
}

func parseDuration(n ast.Node) (time.Duration, error) {
	s, err := parseText(n)
	if err != nil {
		return 0, fmt.Errorf("must be a duration such as 30s, not %s", nodeKind(n))
	}
	if _, err := strconv.Atoi(s); err == nil {
		return 0, fmt.Errorf("%q is not a duration; write it as %ss", s, s)
	}
	value, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write it like 30s, 10m or 1h", s)
	}
	return value, nil
}

func parseAddress(n ast.Node) (*url.URL, error) {
	s, err := parseText(n)
	if err != nil {
		return nil, err
	}
	return parseURL(s)
}

// parseURL does not repeat the URL in its error: a password may be in it.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("must be a whole URL such as https://api.freeagent.com")
	}
	if u.Path == "/" {
		u.Path = ""
	}
	return u, nil
}

// blank nodes say nothing: the default stays.
func blank(n ast.Node) bool {
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return true
	case *ast.StringNode:
		return n.Value == ""
	}
	return false
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil {
		return 1
	}
	return max(1, n.GetToken().Position.Line)
}

// nodeKind is what a node is, for a sentence.
func nodeKind(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "a section"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	default:
		return "an anchor, alias or tag, which are not supported"
	}
}

"""The ground floor: the nouns every room speaks (rows, requests, replies, faults, results), the error root, time, money, JSON and secrets."""

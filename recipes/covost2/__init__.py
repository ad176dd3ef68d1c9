"""The paper's experiment: CoVoST 2, English to Chinese, Qwen2-Audio-7B."""
